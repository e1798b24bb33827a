"""Rewards in, metrics out: plain Python floats, fractions of 1. The deciding tower uses this room too, so there is no torch in it.

May import: data, job.
"""
