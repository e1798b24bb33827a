"""Commands that run an experiment or show what one needs, and what a user sees while jobs run.

May import: options.
"""
