"""EleutherAI sparsify's SAE step for `gpu.py`, which imports this where the library is installed.

Its module and its own loss (fraction of variance unexplained), which on a GPU decodes by its Triton kernel; what its trainer adds
(projection, renormalisation before each step) is left out, in its favour.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from autocast_step import autocast_step
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor


def step(hidden: int, latents: int, k: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A step on vectors `[batch, hidden]`."""
    coder = SparseCoder(hidden, SparseCoderConfig(num_latents=latents, k=k), device=device, dtype=torch.float32)
    return autocast_step(coder, device, lambda x: coder(x).fvu)
