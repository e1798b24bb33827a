"""Weights on disk: safetensors only, one file for each published layout; and files of a hub at a pinned commit.

May import: backbone, config, job, reward, sae, store.
"""
