"""Explained latents: their table, how well explanations detect, and whether a latent does what its weight says.

May import: answers, cells, provenance, statistics.
"""
