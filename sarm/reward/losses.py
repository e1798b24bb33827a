"""Reward objectives and attribution: pure math on tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Attribution(NamedTuple):
    """Latents that carry a reward, largest absolute contribution first: `[batch, n]` each."""

    latents: Tensor
    activations: Tensor
    weights: Tensor
    contributions: Tensor


def preference_losses(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """Bradley-Terry loss of each pair, in float32: `[pairs]` twice to `[pairs]`. Source: Eq. 1; bradley_terry.py:465-468."""
    return -functional.logsigmoid(chosen_rewards.float() - rejected_rewards.float())


def attribution(latents: Tensor, head_weights: Tensor, top: int) -> Attribution:
    """The `top` latents by absolute contribution z_i w_i to each reward. Source: Eq. 9.

    Shapes: latents `[batch, n_latents]`, head_weights `[n_latents]`. The contributions of all latents sum to the reward.
    """
    contributions = latents.float() * head_weights.float()
    chosen = contributions.abs().topk(min(top, contributions.shape[-1]), dim=-1).indices
    return Attribution(
        latents=chosen,
        activations=torch.gather(latents.float(), -1, chosen),
        weights=head_weights.float()[chosen],
        contributions=torch.gather(contributions, -1, chosen),
    )
