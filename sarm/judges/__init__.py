"""Language models as judges: prompts, endpoints, kept answers, and how words become rewards.

May import: job, store.
"""
