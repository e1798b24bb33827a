"""Triton kernels; each has a plain PyTorch form elsewhere that gives the same.

May import: nothing beside it.
"""
