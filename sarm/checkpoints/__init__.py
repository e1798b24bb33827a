"""Weights on disk: safetensors only, one file for each published layout; and files of a hub at a pinned commit.

May import: backbone, job, reward, sae, store.
"""
