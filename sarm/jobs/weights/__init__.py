"""Jobs that take in, hand out and compare weights that were trained elsewhere.

May import: nothing beside it.
"""
