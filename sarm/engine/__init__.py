"""How training runs: devices, optimizer steps, groups of processes, checkpoints that resume exactly.

May import: job, store.
"""
