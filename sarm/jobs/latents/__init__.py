"""Jobs that look into a SARM: steering, contexts, explanations.

May import: nothing beside it.
"""
