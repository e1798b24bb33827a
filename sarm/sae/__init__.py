"""TopK sparse autoencoders: their math, their fast step, its kernels, and the update that trains them.

May import: config, engine, job.
"""
