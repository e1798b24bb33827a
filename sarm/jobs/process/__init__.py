"""The process around jobs: claims, events, ranks, measurements, and the registry of kinds. It names kinds and imports none.

May import: nothing beside it.
"""
