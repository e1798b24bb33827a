"""Jobs of SARM's neighbours: heads on cached states of a frozen backbone.

May import: nothing beside it.
"""
