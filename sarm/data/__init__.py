"""Preferences, texts and benchmarks: the shapes that all data have here, how they become tokens, and how they look in a notebook.

May import: job, store.
"""
