"""What Python users call, as `from sarm import ...` (docs/python.md): models and SAEs that are loaded once and asked many times.

May import: backbone, checkpoints, data, engine, job, reward, sae, scoring.
"""
