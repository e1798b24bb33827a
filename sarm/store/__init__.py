"""Artifacts on disk: whole or not at all, checked, owned while they are made, packed for other machines.

May import: job.
"""
