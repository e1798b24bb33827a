"""Jobs that train: backbones of the miniature, SAEs, reward models.

May import: nothing beside it.
"""
