"""Reward models on disk: our own layout, the authors', sequence classifiers, and published heads.

May import: backbones, config_files, loading, saes, sarm_geometry, spread, tensors.
"""
