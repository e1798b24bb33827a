"""Triton kernels for the products of a TopK code with dense matrices. Their plain form, with shapes, is `sarm.sae.sparse_products`.

Sums are in single precision, in a fixed order and without atomic additions, so a repeated run gives the same bits. Products that are
summed pair after pair are fused by name and nothing else is, so that neither the columns of a program nor the compiler's version move a
bit. Sums by latent read each weight once and find the batch's vectors in cache. Source: Gao et al. 2025, appendix D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Columns of a program at most. Measured on an H100: tiles of pairs times columns, summed across threads in every step of the loop,
# took 10 to 20 times as long as one pair after the other.
DECODE_COLUMNS = 512
SUM_COLUMNS = 1024
COLUMNS_OF_A_WARP = 256
# For every launch: the default differs between versions of Triton.
UNFUSED = {"enable_fp_fusion": False}
# Pairs that one step of `latent_sums` loads at a time.
TILE = 32
# Pairs of a program of `value_gradients`, and the columns that it takes at a time.
PAIRS, PAIR_COLUMNS = 16, 256


@triton.jit
def _decode_kernel(values, indices, weights, out, k, hidden, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < hidden
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for place in range(0, k):
        latent = tl.load(indices + row * k + place).to(tl.int64)
        value = tl.load(values + row * k + place).to(tl.float32)
        total = tl.fma(value, tl.load(weights + latent * hidden + columns, mask=inside, other=0.0).to(tl.float32), total)
    tl.store(out + row * hidden + columns, total, mask=inside)


@triton.jit
def _value_gradient_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    gradient, weights, latents, rows, order, out, pairs, hidden, PAIRS: tl.constexpr, COLUMNS: tl.constexpr
):
    # Neighbours in the order of latents share a row of the weights.
    places = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    present = places < pairs
    number = tl.load(order + places, mask=present, other=0)
    latent = tl.load(latents + number, mask=present, other=0).to(tl.int64)
    row = tl.load(rows + places, mask=present, other=0).to(tl.int64)
    total = tl.zeros((PAIRS,), dtype=tl.float32)
    for start in range(0, hidden, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        mask = present[:, None] & (columns < hidden)[None, :]
        left = tl.load(gradient + row[:, None] * hidden + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        right = tl.load(weights + latent[:, None] * hidden + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(left * right, axis=1)
    tl.store(out + number, total, mask=present)


@triton.jit
def pair_sum(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    factors, vectors, rows, first, last, hidden, columns, COLUMNS: tl.constexpr
) -> tl.tensor:
    """One latent's gradient in some columns: the sum over its pairs `first` to `last` (in the order of latents)."""
    inside = columns < hidden
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for place in range(first, last):
        factor = tl.load(factors + place).to(tl.float32)
        row = tl.load(rows + place).to(tl.int64)
        total = tl.fma(factor, tl.load(vectors + row * hidden + columns, mask=inside, other=0.0).to(tl.float32), total)
    return total


@triton.jit
def _weight_gradient_kernel(factors, vectors, rows, starts, out, hidden, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    latent = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = pair_sum(factors, vectors, rows, tl.load(starts + latent), tl.load(starts + latent + 1), hidden, columns, COLUMNS)
    tl.store(out + latent * hidden + columns, total.to(out.dtype.element_ty), mask=columns < hidden)


@triton.jit
def _latent_sum_kernel(factors, starts, out, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    latent = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + latent)
    last = tl.load(starts + latent + 1)
    total = tl.zeros((TILE,), dtype=tl.float32)
    for start in range(first, last, TILE):
        places = start + tl.arange(0, TILE)
        total += tl.load(factors + places, mask=places < last, other=0.0).to(tl.float32)
    tl.store(out + latent, tl.sum(total, axis=0))


def columns_and_warps(hidden: int, most: int) -> tuple[int, int]:
    """How many columns a program takes, a power of 2, and its warps: 8 columns a thread, which is one or two loads of 16 bytes."""
    columns = min(most, triton.next_power_of_2(hidden))
    return columns, max(1, columns // COLUMNS_OF_A_WARP)


def decode(values: Tensor, indices: Tensor, decoder_rows: Tensor) -> Tensor:
    """`[rows, k]` values and indices, `[n_latents, hidden_size]` to `[rows, hidden_size]` float32."""
    rows, k = values.shape
    hidden = decoder_rows.shape[1]
    out = torch.empty(rows, hidden, dtype=torch.float32, device=values.device)
    columns, warps = columns_and_warps(hidden, DECODE_COLUMNS)
    operands = values.contiguous(), indices.contiguous(), decoder_rows.contiguous()
    _decode_kernel[rows, triton.cdiv(hidden, columns)](*operands, out, k, hidden, COLUMNS=columns, num_warps=warps, **UNFUSED)
    return out


def value_gradients(gradient: Tensor, decoder_rows: Tensor, *, latents: Tensor, rows: Tensor, order: Tensor) -> Tensor:
    """Dot products `[P]` float32, row by row; `rows` and `order` are in the order of latents."""
    pairs, hidden = len(latents), decoder_rows.shape[1]
    out = torch.empty(pairs, dtype=torch.float32, device=gradient.device)
    operands = gradient.contiguous(), decoder_rows.contiguous(), latents, rows, order
    grid = (triton.cdiv(pairs, PAIRS),)
    _value_gradient_kernel[grid](*operands, out, pairs, hidden, PAIRS=PAIRS, COLUMNS=PAIR_COLUMNS, **UNFUSED)
    return out


def weight_gradients(factors: Tensor, vectors: Tensor, out: Tensor, *, rows: Tensor, starts: Tensor) -> Tensor:
    """Fills and returns `out` `[n_latents, hidden_size]`, of any precision; `factors` and `rows` `[P]` are in the order of latents."""
    latents, hidden = out.shape
    columns, warps = columns_and_warps(hidden, SUM_COLUMNS)
    grid = latents, triton.cdiv(hidden, columns)
    _weight_gradient_kernel[grid](factors, vectors.contiguous(), rows, starts, out, hidden, COLUMNS=columns, num_warps=warps, **UNFUSED)
    return out


def latent_sums(factors: Tensor, *, starts: Tensor) -> Tensor:
    """Sums by latent, `[n_latents]` float32; `factors` `[P]` are in the order of latents."""
    out = torch.empty(len(starts) - 1, dtype=torch.float32, device=factors.device)
    _latent_sum_kernel[(len(out),)](factors, starts, out, TILE=TILE, num_warps=1, **UNFUSED)
    return out
