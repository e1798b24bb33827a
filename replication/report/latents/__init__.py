"""Explained and explored latents: their table, how well explanations detect, what their weights say, and planted truth beside them.

May import: agreement, answers, cells, provenance, statistics.
"""
