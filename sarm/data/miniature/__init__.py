"""The invented language: its words, tasks and replies, and the data sets and tokenizer that are drawn from it.

May import: preferences.
"""
