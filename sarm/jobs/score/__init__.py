"""Jobs that give rewards: to benchmarks, to conversations, by baselines, by judges.

May import: nothing beside it.
"""
