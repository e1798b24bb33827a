"""The truncated decoder: hidden states at a layer, of packed rows, for text that is harvested.

May import: data, engine, job.
"""
