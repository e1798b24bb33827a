"""Reward models on disk: our own layout, the authors', sequence classifiers, and published heads.

May import: backbones, loading, saes, sarm_geometry, tensors.
"""
