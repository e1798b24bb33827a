"""SAEs on disk: our own files, and those of other projects.

May import: loading, sarm_geometry, tensors.
"""
