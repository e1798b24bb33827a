"""Triton kernels for the products of a TopK code with dense matrices. Their plain form, with shapes, is `sarm.sae.sparse_products`.

Sums are in single precision, in a fixed order and without atomic additions, so a repeated run gives the same bits.
The latent-ordered ones read each weight once and find the batch's vectors in cache. Source: Gao et al. 2025, appendix D.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 256
# Pairs that one step of a loop loads at a time.
TILE = 8
# Pairs of a program of `value_gradients`.
PAIRS = 16


@triton.jit
def _decode_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    values, indices, weights, out, k, hidden, TILE: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < hidden
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(0, k, TILE):
        places = start + tl.arange(0, TILE)
        latents = tl.load(indices + row * k + places, mask=places < k, other=0).to(tl.int64)
        value = tl.load(values + row * k + places, mask=places < k, other=0.0).to(tl.float32)
        tile = tl.load(weights + latents[:, None] * hidden + columns[None, :], mask=(places < k)[:, None] & inside[None, :], other=0.0)
        total += tl.sum(value[:, None] * tile.to(tl.float32), axis=0)
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
def _weight_gradient_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    factors, vectors, order, rows, starts, out, hidden, TILE: tl.constexpr, COLUMNS: tl.constexpr
):
    latent = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < hidden
    first = tl.load(starts + latent)
    last = tl.load(starts + latent + 1)
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(first, last, TILE):
        places = start + tl.arange(0, TILE)
        present = places < last
        number = tl.load(order + places, mask=present, other=0)
        factor = tl.load(factors + number, mask=present, other=0.0).to(tl.float32)
        row = tl.load(rows + places, mask=present, other=0).to(tl.int64)
        tile = tl.load(vectors + row[:, None] * hidden + columns[None, :], mask=present[:, None] & inside[None, :], other=0.0)
        total += tl.sum(factor[:, None] * tile.to(tl.float32), axis=0)
    tl.store(out + latent * hidden + columns, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _latent_sum_kernel(factors, order, starts, out, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    latent = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + latent)
    last = tl.load(starts + latent + 1)
    total = tl.zeros((TILE,), dtype=tl.float32)
    for start in range(first, last, TILE):
        places = start + tl.arange(0, TILE)
        number = tl.load(order + places, mask=places < last, other=0)
        total += tl.load(factors + number, mask=places < last, other=0.0).to(tl.float32)
    tl.store(out + latent, tl.sum(total, axis=0))


def decode(values: Tensor, indices: Tensor, decoder_rows: Tensor) -> Tensor:
    """`[rows, k]` values and indices, `[n_latents, hidden_size]` to `[rows, hidden_size]` float32."""
    rows, k = values.shape
    hidden = decoder_rows.shape[1]
    out = torch.empty(rows, hidden, dtype=torch.float32, device=values.device)
    grid = rows, triton.cdiv(hidden, COLUMNS)
    _decode_kernel[grid](values.contiguous(), indices.contiguous(), decoder_rows.contiguous(), out, k, hidden, TILE=TILE, COLUMNS=COLUMNS)
    return out


def value_gradients(gradient: Tensor, decoder_rows: Tensor, *, latents: Tensor, rows: Tensor, order: Tensor) -> Tensor:
    """Dot products `[P]` float32, row by row; `rows` and `order` are in the order of latents."""
    pairs, hidden = len(latents), decoder_rows.shape[1]
    out = torch.empty(pairs, dtype=torch.float32, device=gradient.device)
    _value_gradient_kernel[(triton.cdiv(pairs, PAIRS),)](
        gradient.contiguous(), decoder_rows.contiguous(), latents, rows, order, out, pairs, hidden, PAIRS=PAIRS, COLUMNS=COLUMNS
    )
    return out


def weight_gradients(factors: Tensor, vectors: Tensor, out: Tensor, *, rows: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Fills and returns `out` `[n_latents, hidden_size]`, of any precision; `factors` `[P]` are row by row."""
    latents, hidden = out.shape
    grid = latents, triton.cdiv(hidden, COLUMNS)
    _weight_gradient_kernel[grid](factors, vectors.contiguous(), order, rows, starts, out, hidden, TILE=TILE, COLUMNS=COLUMNS)
    return out


def latent_sums(factors: Tensor, *, order: Tensor, starts: Tensor) -> Tensor:
    """Sums by latent, `[n_latents]` float32."""
    out = torch.empty(len(starts) - 1, dtype=torch.float32, device=factors.device)
    _latent_sum_kernel[(len(out),)](factors, order, starts, out, TILE=TILE)
    return out
