"""Jobs that look into a SARM: steering, contexts, explanations, all contributions to a benchmark's rewards.

May import: nothing beside it.
"""
