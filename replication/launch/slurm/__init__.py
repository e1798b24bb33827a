"""Slurm: what is submitted, how it is asked, what it answers, and the committed scripts.

May import: interface.
"""
