"""Reward models on disk: our own layout, the authors', sequence classifiers, and published heads.

May import: backbones, saes, sarm_geometry, tensors.
"""
