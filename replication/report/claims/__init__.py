"""The paper's claims: what they say, tested on its own numbers and on ours.

May import: audit, latents, measurements, published, statistics, steering.
"""
