"""SAEs on disk: our own files, and those of other projects.

May import: sarm_geometry, tensors.
"""
