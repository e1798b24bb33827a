"""Products of a TopK code with dense matrices that touch the active (row, latent) pairs alone. Source: Gao et al. 2025, appendix D.

Sums are in single precision at least, whatever the operands' precision, and so are results that have no place given.
On a GPU with Triton `sarm.sae.kernels` computes them, elsewhere torch's sparse matrices.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm.sae import kernel_choice

# numpy sorts integers of 16 bits by their digits, ten times faster than torch sorts wider ones.
LATENTS_OF_16_BITS = 2**16


class Pairs(NamedTuple):
    """The active pairs of a code `[rows, n_latents]`, P in all, row by row and ordered by latent.

    `row_starts` `[rows + 1]` and `latents` `[P]`: row r's latents are `latents[row_starts[r] : row_starts[r + 1]]`.
    `order` `[P]`: the pairs' numbers sorted by latent, by row within one; `latent_starts` `[n_latents + 1]` cuts it by latent and
    `rows` `[P]` are the rows in that order. All int32 but `order` (int64).
    """

    row_starts: Tensor
    latents: Tensor
    order: Tensor
    latent_starts: Tensor
    rows: Tensor

    def by_latent(self, factors: Tensor) -> Tensor:
        """Numbers of the pairs, `[P]` row by row, put into the order of latents."""
        return factors[self.order]


def pairs_of(indices: list[Tensor], n_latents: int) -> Pairs:
    """The pairs of blocks of rows, each `[rows, k]` with a k of its own, one below the other."""
    device = indices[0].device
    counts, owners, first = [], [], 0
    for block in indices:
        rows, k = block.shape
        counts.append(torch.full((rows,), k, device=device))
        owners.append(torch.arange(first, first + rows, device=device, dtype=torch.int32).repeat_interleave(k))
        first += rows
    # Narrow numbers sort in half the time.
    latents = torch.cat([block.reshape(-1) for block in indices]).int()
    order, starts = _by_latent(latents, n_latents)
    return Pairs(row_starts=_starts(torch.cat(counts)), latents=latents, order=order, latent_starts=starts, rows=torch.cat(owners)[order])


def _starts(counts: Tensor) -> Tensor:
    starts = torch.zeros(len(counts) + 1, dtype=torch.int32, device=counts.device)
    starts[1:] = counts.cumsum(0)
    return starts


def _by_latent(latents: Tensor, n_latents: int) -> tuple[Tensor, Tensor]:
    """The stable order of latents, and where each begins in it, `[n_latents + 1]`."""
    if latents.device.type == "cpu":
        order = _argsort_16_bits(latents) if n_latents <= LATENTS_OF_16_BITS else latents.argsort(stable=True)
        return order, _starts(torch.bincount(latents, minlength=n_latents))
    # A count by latent would ask the device for the largest and wait; looking each one up in what is sorted does not.
    ordered, order = latents.sort(stable=True)
    numbers = torch.arange(n_latents + 1, dtype=torch.int32, device=latents.device)
    return order, torch.searchsorted(ordered, numbers, out_int32=True)


def _argsort_16_bits(latents: Tensor) -> Tensor:
    return torch.from_numpy(np.argsort(latents.numpy().astype(np.uint16), kind="stable"))


def decode(values: Tensor, indices: Tensor, decoder_rows: Tensor) -> Tensor:
    """Latents times decoder from k rows of it: `values` and `indices` `[rows, k]`, `[n_latents, hidden_size]` to `[rows, hidden_size]`."""
    triton = kernel_choice.kernels("active_pairs", values)
    if triton is not None:
        return triton.decode(values, indices, decoder_rows)
    rows, k = values.shape
    starts = torch.arange(0, rows * k + 1, k, dtype=torch.int32, device=values.device)
    code = _csr(starts, indices.reshape(-1).int(), _wide(values).reshape(-1), (rows, len(decoder_rows)))
    return code @ _wide(decoder_rows)


def value_gradients(gradient: Tensor, decoder_rows: Tensor, pairs: Pairs) -> Tensor:
    """What each pair's value gets from the reconstruction's gradient `[rows, hidden_size]`: a dot product, `[P]` row by row."""
    triton = kernel_choice.kernels("active_pairs", gradient)
    if triton is not None:
        return triton.value_gradients(gradient, decoder_rows, latents=pairs.latents, rows=pairs.rows, order=pairs.order)
    zeros = torch.zeros(len(pairs.latents), dtype=_wide(gradient).dtype, device=gradient.device)
    pattern = _csr(pairs.row_starts, pairs.latents, zeros, (len(gradient), len(decoder_rows)))
    return torch.sparse.sampled_addmm(pattern, _wide(gradient), _wide(decoder_rows).T, beta=0).values()


def weight_gradients(factors: Tensor, vectors: Tensor, pairs: Pairs, out: Tensor) -> Tensor:
    """Each latent's sum of its pairs' factor `[P]` (row by row) times its row of `vectors` `[rows, hidden_size]`.

    Fills and returns `out` `[n_latents, hidden_size]`. The vectors are read in the order of latents, so they stay in cache.
    """
    triton = kernel_choice.kernels("active_pairs", vectors)
    if triton is not None:
        return triton.weight_gradients(pairs.by_latent(factors), vectors, out, rows=pairs.rows, starts=pairs.latent_starts)
    transposed = _csr(pairs.latent_starts, pairs.rows, pairs.by_latent(_wide(factors)), (len(out), len(vectors)))
    if out.dtype == transposed.dtype:
        return torch.addmm(out, transposed, _wide(vectors), beta=0, out=out)
    return out.copy_(transposed @ _wide(vectors))


def latent_sums(factors: Tensor, pairs: Pairs, n_latents: int) -> Tensor:
    """Each latent's sum of its pairs' factors: `[P]` row by row to `[n_latents]`."""
    triton = kernel_choice.kernels("active_pairs", factors)
    if triton is not None:
        return triton.latent_sums(pairs.by_latent(factors), starts=pairs.latent_starts)
    wide = _wide(factors)
    return torch.zeros(n_latents, dtype=wide.dtype, device=factors.device).index_add_(0, pairs.latents, wide)


def _wide(tensor: Tensor) -> Tensor:
    # Sparse products exist in single and double precision only.
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch tells once a process that its sparse matrices are young.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        # torch 2.11 tells it of a call that says itself that it wants none.
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
