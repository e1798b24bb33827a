"""SAEs on disk: our own files, and those of other projects.

May import: config_files, leftovers, loading, quantized, sarm_geometry, settings_keys, tensors.
"""
