"""Rewards of many conversations: completions as rows, batches by length, prompts computed once, partial results kept.

May import: backbone, config, data, job, reward, store.
"""
