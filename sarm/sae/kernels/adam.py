"""Adam in one pass over the memory: on given gradients, or on those of active pairs, which are summed and used but never written.

The plain forms are `sarm.sae.small_moments` and torch's Adam after `sarm.sae.sparse_products.weight_gradients`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sarm.sae.kernels.active_pairs import SUM_COLUMNS, UNFUSED, columns_and_warps, pair_sum

ELEMENTS = 1024


@triton.jit
def _adam(p, m, v, g, decay1, rest1, decay2, rest2, rate, correction, epsilon):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Parameter and moments after a step. What is fused is named, so that every kernel here rounds alike."""
    first = tl.fma(decay1, m, rest1 * g)
    second = tl.fma(decay2, v, rest2 * g * g)
    return tl.fma(-rate, tl.div_rn(first, tl.sqrt_rn(tl.div_rn(second, correction)) + epsilon), p), first, second


@triton.jit
def _stored_square(second, seed, places, SMALL: tl.constexpr):  # type: ignore[no-untyped-def]
    """The second moment as it is kept: bfloat16 by chance, with noise below its last bit and the bits below that cut off; or as it is."""
    if SMALL:
        noise = tl.randint(seed, places.to(tl.int32)).to(tl.int32, bitcast=True) & 0xFFFF
        bits = (second.to(tl.int32, bitcast=True) + noise) & -65536
        return bits.to(tl.float32, bitcast=True).to(tl.bfloat16)
    else:
        return second


# A seed is another number in every step: a kernel made for its value would be compiled again and again.
@triton.jit(do_not_specialize=["seed"])
def _update_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    parameter, gradient, mean, square, size, decay1, rest1, decay2, rest2, rate, correction, epsilon, seed, ELEMENTS: tl.constexpr
):
    places = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = places < size
    p = tl.load(parameter + places, mask=inside, other=0.0)
    g = tl.load(gradient + places, mask=inside, other=0.0)
    m = tl.load(mean + places, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(square + places, mask=inside, other=0.0).to(tl.float32)
    p, first, second = _adam(p, m, v, g, decay1, rest1, decay2, rest2, rate, correction, epsilon)
    tl.store(parameter + places, p, mask=inside)
    tl.store(mean + places, first.to(tl.bfloat16), mask=inside)
    tl.store(square + places, _stored_square(second, seed, places, True), mask=inside)


@triton.jit(do_not_specialize=["seed"])
def _pair_update_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    factors,
    vectors,
    rows,
    starts,
    parameter,
    mean,
    square,
    hidden,
    decay1,
    rest1,
    decay2,
    rest2,
    rate,
    correction,
    epsilon,
    seed,
    SMALL: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    latent = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < hidden
    places = latent * hidden + columns
    # Asked for before the sum, so that they are on their way while it is formed.
    p = tl.load(parameter + places, mask=inside, other=0.0)
    m = tl.load(mean + places, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(square + places, mask=inside, other=0.0).to(tl.float32)
    g = pair_sum(factors, vectors, rows, tl.load(starts + latent), tl.load(starts + latent + 1), hidden, columns, COLUMNS)
    p, first, second = _adam(p, m, v, g, decay1, rest1, decay2, rest2, rate, correction, epsilon)
    tl.store(parameter + places, p, mask=inside)
    tl.store(mean + places, first.to(mean.dtype.element_ty), mask=inside)
    tl.store(square + places, _stored_square(second, seed, places, SMALL), mask=inside)


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
    """In place on flat tensors, `parameter` and `gradient` in float32, the moments in bfloat16."""
    assert parameter.dtype == gradient.dtype == torch.float32
    grid = (triton.cdiv(len(parameter), ELEMENTS),)
    # What is left of 1 is taken here: in float32 0.001 would be off by 1e-5 of itself.
    scalars = beta1, 1 - beta1, beta2, 1 - beta2, rate, correction, epsilon, seed
    _update_kernel[grid](parameter, gradient, mean, square, len(parameter), *scalars, ELEMENTS=ELEMENTS, **UNFUSED)


def update_by_pairs(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    factors: Tensor,
    vectors: Tensor,
    rows: Tensor,
    starts: Tensor,
    beta1: float,
    beta2: float,
    rate: float,
    correction: float,
    epsilon: float,
    seed: int,
) -> None:
    """In place on `[n_latents, hidden_size]`: `parameter` in float32, the moments in float32 or both in bfloat16.

    `factors` and `rows` `[P]` are in the order of latents, which `starts` `[n_latents + 1]` cuts; `vectors` `[rows, hidden_size]`.
    `seed` counts for moments in bfloat16 alone, where this equals `weight_gradients` into float32 and then `update` bit for bit.
    """
    assert parameter.dtype == torch.float32 and mean.dtype == square.dtype
    assert parameter.is_contiguous() and mean.is_contiguous() and square.is_contiguous()
    latents, hidden = parameter.shape
    columns, warps = columns_and_warps(hidden, SUM_COLUMNS)
    grid = latents, triton.cdiv(hidden, columns)
    sums = factors, vectors.contiguous(), rows, starts
    scalars = beta1, 1 - beta1, beta2, 1 - beta2, rate, correction, epsilon, seed
    fixed = {"SMALL": mean.dtype == torch.bfloat16, "COLUMNS": columns, "num_warps": warps, **UNFUSED}
    _pair_update_kernel[grid](*sums, parameter, mean, square, hidden, *scalars, **fixed)
