"""Preferences, texts and benchmarks: the shapes that all data have here, and how they become tokens.

May import: job, store.
"""
