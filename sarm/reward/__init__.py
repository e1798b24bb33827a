"""Reward models and what they are made of: heads, losses, pairs in batches, updates, steering, SparseRM and SAFER.

May import: backbone, config, data, engine, job, sae.
"""
