"""Jobs that bring data into the store: the miniature, public data sets, a sentence splitter's tables.

May import: nothing beside it.
"""
