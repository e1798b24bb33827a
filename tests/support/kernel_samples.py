"""Operands for the kernels of the SAE step, and what each product is in float64 on the CPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sarm.sae import sparse_products
from sarm.sae.sparse_products import Pairs


class Operands(NamedTuple):
    """A code's `values` and `indices` `[rows, k]`, its rows' `vectors` `[rows, hidden]`, its latents' `weights` `[n_latents, hidden]`."""

    values: Tensor
    indices: Tensor
    vectors: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Operands:
        """The same on another device."""
        return Operands(*(tensor.to(device) for tensor in self))

    def pairs(self) -> Pairs:
        """The active pairs of the code."""
        return sparse_products.pairs_of([self.indices], len(self.weights))


def operands(*, rows: int, hidden: int, n_latents: int, k: int, dtype: torch.dtype) -> Operands:
    """Random ones, rounded to `dtype`. Every row keeps latent 0, so that one sum is long; none keeps latent 1."""
    draw = torch.Generator().manual_seed(rows + hidden)
    chance = torch.rand(rows, n_latents, generator=draw)
    chance[:, 0], chance[:, 1] = 2.0, -1.0
    indices = chance.topk(k, dim=-1).indices
    values, vectors, weights = (torch.randn(size, generator=draw).to(dtype) for size in ((rows, k), (rows, hidden), (n_latents, hidden)))
    return Operands(values, indices, vectors, weights)


def products(given: Operands) -> dict[str, Tensor]:
    """All that a step computes from active pairs, where the operands lie, in single precision at least."""
    pairs = given.pairs()
    wide = torch.promote_types(given.weights.dtype, torch.float32)
    # What a kernel leaves out stays a number that is none.
    unwritten = torch.full(given.weights.shape, float("nan"), dtype=wide, device=given.weights.device)
    factors = given.values.reshape(-1)
    return {
        "decode": sparse_products.decode(given.values, given.indices, given.weights),
        "value gradients": sparse_products.value_gradients(given.vectors, given.weights, pairs),
        "weight gradients": sparse_products.weight_gradients(factors, given.vectors, pairs, unwritten),
        "latent sums": sparse_products.latent_sums(factors, pairs, len(given.weights)),
    }


def exact_products(given: Operands) -> dict[str, Tensor]:
    """The same from dense products in float64 on the CPU."""
    values, indices, vectors, weights = (tensor.cpu() for tensor in given)
    code = torch.zeros(len(values), len(weights), dtype=torch.float64).scatter(1, indices, values.double())
    return {
        "decode": code @ weights.double(),
        "value gradients": (vectors.double() @ weights.double().T).gather(1, indices).reshape(-1),
        "weight gradients": code.T @ vectors.double(),
        "latent sums": code.sum(dim=0),
    }


def apart(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm; not a number where `found` holds one that is none."""
    return float((found.double().cpu() - exact.double().cpu()).norm() / exact.double().norm())
