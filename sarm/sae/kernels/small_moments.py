"""Adam with bfloat16 moments in one pass over the memory. Its plain form, with the rules told, is `sarm.sae.small_moments`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024


@triton.jit
def _update_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    parameter, gradient, mean, square, size, beta1, beta2, rate, correction, epsilon, seed, ELEMENTS: tl.constexpr
):
    places = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < size
    p = tl.load(parameter + places, mask=inside, other=0.0)
    g = tl.load(gradient + places, mask=inside, other=0.0)
    first = beta1 * tl.load(mean + places, mask=inside, other=0.0).to(tl.float32) + (1 - beta1) * g
    second = beta2 * tl.load(square + places, mask=inside, other=0.0).to(tl.float32) + (1 - beta2) * g * g
    tl.store(parameter + places, p - rate * first / (tl.sqrt(second / correction) + epsilon), mask=inside)
    tl.store(mean + places, first.to(tl.bfloat16), mask=inside)
    # Noise below bfloat16's last bit, then the bits below it cut off.
    noise = tl.randint(seed, places.to(tl.int32)).to(tl.int32, bitcast=True) & 0xFFFF
    bits = (second.to(tl.int32, bitcast=True) + noise) & -65536
    tl.store(square + places, bits.to(tl.float32, bitcast=True).to(tl.bfloat16), mask=inside)


def update(
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
    """In place on flat tensors, `parameter` and `gradient` in float32."""
    assert parameter.dtype == gradient.dtype == torch.float32
    grid = (triton.cdiv(len(parameter), ELEMENTS),)
    _update_kernel[grid](
        parameter, gradient, mean, square, len(parameter), beta1, beta2, rate, correction, epsilon, seed, ELEMENTS=ELEMENTS
    )
