"""A profile for a user's own model and data, made from a look at them: sizes at the paper's shares, places without a home, TOML text.

May import: frozen, settings, usage_problems.
"""
