"""SAELens' SAE step for `gpu.py`, which imports this where the library is installed.

Its `TopKTrainingSAE` and its own loss, with no dead latents, so that its auxiliary loss costs nothing; what its trainer adds (clipping,
statistics of firing) is left out, in its favour.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from autocast_step import autocast_step
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor


def step(hidden: int, latents: int, k: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A step on vectors `[batch, hidden]`."""
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=hidden, d_sae=latents, k=k, dtype="float32", device=str(device)))

    def loss(x: Tensor) -> Tensor:
        given = TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
        return sae.training_forward_pass(given).loss

    return autocast_step(sae, device, loss)
