"""Preferences, tokens and public data sources."""
