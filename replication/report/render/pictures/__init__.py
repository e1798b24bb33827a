"""Pictures beside the tables, each with a text alternative: intervals, curves, training, head weights, claims.

May import: nothing beside it.
"""
