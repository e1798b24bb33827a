"""`python -m sarm.demo`: a reward model that answers a page on this machine, with the latents behind each reward. Writes no artifact.

May import: backbone, checkpoints, config, data, engine, job, scoring, store.
"""
