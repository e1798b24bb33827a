"""SAEs on disk: our own files, and those of other projects.

May import: config_files, loading, sarm_geometry, tensors.
"""
