"""The consistency of the paper's own numbers: only arithmetic, no model.

May import: counts, published.
"""
