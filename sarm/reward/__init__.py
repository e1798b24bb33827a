"""Reward models and what they are made of: heads, losses, pairs in batches, steering, SparseRM and SAFER.

May import: backbone, config, data, job, sae.
"""
