"""Adam's step on an SAE's two matrices inside the kernel that sums their gradients, so that these are never written nor read.

It is exact because nothing lies between a latent's gradient and its update: no norm over all gradients (the SAE is trained without
clipping) and no sum over processes. Where there is one, or no kernel, gradients are formed and handed to the optimizer.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from sarm.sae import kernel_choice
from sarm.sae.small_moments import SmallMomentsAdam, step_settings
from sarm.sae.step import Descent, SAETensors

Optimizer = torch.optim.Adam | SmallMomentsAdam


def pair_kernels(weights: SAETensors) -> ModuleType | None:
    """The kernels that update such matrices, None where there are none: float32 on a GPU with Triton."""
    return kernel_choice.kernels("adam", weights.encoder) if weights.encoder.dtype == torch.float32 else None


@torch.no_grad()
def step_by_pairs(optimizer: Optimizer, weights: SAETensors, found: Descent, triton: ModuleType) -> None:
    """One step of an optimizer over `weights`, in their order and in one group; its state is as after its own step, up to rounding."""
    weights.pre_bias.grad, weights.latent_bias.grad = found.pre_bias, found.latent_bias
    weights.encoder.grad = weights.decoder_rows.grad = None
    optimizer.step()
    (group,) = optimizer.param_groups
    sums = {2: found.encoder, 3: found.decoder_rows}
    states = {place: _state(optimizer, weights[place]) for place in sums}
    # Read for both before anything is started, since torch's fused Adam keeps its count on the device.
    done = {place: int(state["step"]) for place, state in states.items()}
    for place, gradient in sums.items():
        state = states[place]
        state["step"] += 1
        triton.update_by_pairs(
            weights[place],
            state["exp_avg"],
            state["exp_avg_sq"],
            factors=found.pairs.by_latent(gradient.factors),
            vectors=gradient.vectors,
            rows=found.pairs.rows,
            starts=found.pairs.latent_starts,
            **step_settings(group, step=done[place] + 1, place=place),
        )


def _state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """`step` and the moments of a parameter that the optimizer itself may never have stepped."""
    if isinstance(optimizer, SmallMomentsAdam):
        return optimizer.state_of(parameter)
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        # As torch's own fused form begins.
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state
