"""Reward models on disk: our own layout, the authors', sequence classifiers, and published heads.

May import: backbones, config_files, leftovers, loading, quantized, saes, sarm_geometry, spread, tensors.
"""
