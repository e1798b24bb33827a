"""Adam whose two moments are kept in bfloat16: half the state, and 20 instead of 28 bytes of traffic a parameter and step.

Pure arithmetic on tensors. Source of the update: Kingma and Ba 2015, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

import torch
from torch import Tensor

from sarm.sae import kernel_choice

EPSILON = 1e-8
# Elements that are computed in float32 at a time, so that no float32 copy of a whole moment is ever held.
SLICE = 2**18
LOW_BITS = 16


class SmallMomentsAdam(torch.optim.Optimizer):
    """Adam with bfloat16 moments on float32 parameters; the arithmetic is in float32.

    The second moment is rounded at random, up or down with the chances that keep its mean: at beta2 = 0.999 a step changes it by less
    than half of bfloat16's spacing, so that rounding to nearest would freeze it. Draws depend on `seed`, the parameter's place and
    the step, so that a resumed run repeats them.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, betas: tuple[float, float], seed: int) -> None:
        super().__init__(list(params), {"lr": lr, "betas": betas, "seed": seed})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, which would widen the moments to the parameters' precision; they are narrowed again without loss."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].to(torch.bfloat16)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, place)

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """`step` and both moments of a parameter; zeros before its first step."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        return state

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state_of(parameter)
        state["step"] += 1
        settings = step_settings(group, step=int(state["step"]), place=place)
        flat = [tensor.view(-1) for tensor in (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])]
        triton = kernel_choice.kernels("adam", parameter)
        if triton is not None:
            triton.update(*flat, **settings)
        else:
            update_by_slices(*flat, **settings)


class StepSettings(TypedDict):
    """Adam's numbers in one step: `rate` includes the first moment's correction, `seed` is for draws of this parameter and step."""

    beta1: float
    beta2: float
    rate: float
    correction: float
    epsilon: float
    seed: int


def step_settings(group: dict[str, Any], *, step: int, place: int) -> StepSettings:
    """Of step `step` (1-based) for the parameter at a place of an optimizer's group, this one's or torch's Adam's."""
    beta1, beta2 = group["betas"]
    return StepSettings(
        beta1=beta1,
        beta2=beta2,
        rate=group["lr"] / (1 - beta1**step),
        correction=1 - beta2**step,
        epsilon=group.get("eps", EPSILON),
        seed=(group.get("seed", 0) * 1_000_003 + place * 7_919 + step * 104_729) % 2**31,
    )


def update_by_slices(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    beta1: float,
    beta2: float,
    rate: float,
    correction: float,
    epsilon: float,
    seed: int,
) -> None:
    """In place on flat tensors: `mean` and `square` are the moments in bfloat16; see StepSettings."""
    draw = torch.Generator(device=parameter.device).manual_seed(seed)
    for start in range(0, len(parameter), SLICE):
        p, g, m, v = (tensor[start : start + SLICE] for tensor in (parameter, gradient, mean, square))
        first = m.float().mul_(beta1).add_(g, alpha=1 - beta1)
        second = v.float().mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p.addcdiv_(first, (second / correction).sqrt_().add_(epsilon), value=-rate)
        m.copy_(first)
        v.copy_(rounded_at_random(second, draw))


def rounded_at_random(values: Tensor, draw: torch.Generator) -> Tensor:
    """Float32 values of 0 or more as bfloat16, up or down with the chances that keep the mean."""
    noise = torch.randint(0, 2**LOW_BITS, values.shape, generator=draw, device=values.device, dtype=torch.int32)
    return ((values.view(torch.int32) + noise) & -(2**LOW_BITS)).view(torch.float32).to(torch.bfloat16)
