"""What a run will do and cost, before anything starts: steps, estimates, memory, refusals.

May import: frozen, recipes, settings, terminal, usage_problems.
"""
