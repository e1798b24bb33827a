"""A training step of somebody's module: its loss under bfloat16 autocast, backward, fused Adam in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LEARNING_RATE = 5e-4


def autocast_step(module: nn.Module, device: torch.device, loss_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The step on a batch of vectors; gives the loss."""
    adam = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE, fused=True)

    def step(x: Tensor) -> Tensor:
        adam.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = loss_of(x)
        loss.backward()
        adam.step()
        return loss.detach()

    return step
