"""Rewards as sums over latents: the contributions of each completion, sparse, and what they come to over groups of completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Rows whose latents are looked at densely at a time: at 65,536 latents in float64, 32 MiB.
ROWS_AT_ONCE = 64
COLUMNS_AT_ONCE = 1024
FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


class Parts(NamedTuple):
    """What one completion's reward is the sum of: latents (as the SAE numbers them), activations, contributions; `rest` of the others."""

    latents: np.ndarray
    activations: np.ndarray
    contributions: np.ndarray
    rest: float


class SparseRewards(NamedTuple):
    """All completions: those of row i stand at `starts[i]` to `starts[i + 1]` of the other arrays; `rest` `[rows]`."""

    starts: np.ndarray
    latents: np.ndarray
    activations: np.ndarray
    contributions: np.ndarray
    rest: np.ndarray


class LatentSums(NamedTuple):
    """Over groups of completions, `[groups, n_latents]` each: how many a latent fires in; sums of contributions, of their squares, and of
    their products with the rewards."""

    fired: Tensor
    contribution: Tensor
    square: Tensor
    product: Tensor

    @staticmethod
    def zeros(groups: int, n_latents: int) -> LatentSums:
        """Sums over nothing."""
        return LatentSums(torch.zeros(groups, n_latents, dtype=torch.int64), *(torch.zeros(groups, n_latents).double() for _ in range(3)))

    def add(self, activations: Tensor, contributions: Tensor, rewards: Tensor, members: Tensor, *, above_zero: bool) -> None:
        """Take in some completions: `[rows, n_latents]` twice, `[rows]`, and `[groups, rows]`, which of them is in which group.

        A latent fires where it is not 0, or with `above_zero` above it.
        """
        inside, exact = members.double(), contributions.double()
        fires = activations > 0 if above_zero else activations != 0
        self.fired.add_((inside @ fires.double()).round().long())
        self.contribution.add_(inside @ exact)
        self.square.add_(inside @ exact.square())
        self.product.add_((inside * rewards.double()) @ exact)


def parts_of(activations: Tensor, contributions: Tensor, numbers: Tensor, *, kept: int) -> Iterator[Parts]:
    """The parts of each row of `[rows, features]` twice: those that are not 0, or with `kept` > 0 the so many largest.

    `numbers` `[features]` are the SAE's numbers of the features.
    """
    for active, shares in zip(activations, contributions, strict=True):
        if kept:
            places = shares.abs().topk(min(kept, len(shares))).indices.sort().values
            others = shares.double().index_fill(0, places, 0.0)
            rest = float(others.sum())
        else:
            places, rest = active.nonzero().squeeze(-1), 0.0
        yield Parts(
            numbers[places].numpy().astype(np.int32), active[places].float().numpy().copy(), shares[places].float().numpy().copy(), rest
        )


def joined(rows: Sequence[Parts]) -> SparseRewards:
    """The parts of all completions as flat arrays."""
    counts = [len(row.latents) for row in rows]
    return SparseRewards(
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        latents=np.concatenate([np.empty(0, np.int32), *(row.latents for row in rows)]),
        activations=np.concatenate([np.empty(0, np.float32), *(row.activations for row in rows)]),
        contributions=np.concatenate([np.empty(0, np.float32), *(row.contributions for row in rows)]),
        rest=np.array([row.rest for row in rows], dtype=np.float64),
    )


def gaps(found: SparseRewards, rewards: np.ndarray, *, constant: float) -> tuple[np.ndarray, np.ndarray]:
    """How far each reward lies from the sum of its parts, and how far rounding in float32 may take it: `[rows]` each.

    The bound is that of a sum of n products in any order: (n + 1) eps times the sum of their absolute values.
    """
    rows = np.repeat(np.arange(len(rewards)), np.diff(found.starts))
    exact = found.contributions.astype(np.float64)
    sums = np.bincount(rows, weights=exact, minlength=len(rewards)) + found.rest + constant
    sizes = np.bincount(rows, weights=np.abs(exact), minlength=len(rewards)) + np.abs(found.rest) + abs(constant)
    counts = np.diff(found.starts) + 2
    return np.abs(sums - rewards.astype(np.float64)), counts * FLOAT32_EPSILON * sizes + float(np.finfo(np.float32).tiny)


def by_latent(found: SparseRewards) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each latent that stands in some completion: its number, the rows, its contributions there."""
    order = np.argsort(found.latents, kind="stable")
    rows = np.repeat(np.arange(len(found.rest)), np.diff(found.starts))[order]
    contributions = found.contributions[order]
    latents, begins = np.unique(found.latents[order], return_index=True)
    for latent, begin, end in zip(latents, begins, [*begins[1:], len(order)], strict=False):
        yield int(latent), rows[begin:end], contributions[begin:end]


@torch.inference_mode()
def nearest_columns(decoder: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """For each column of `[hidden_size, n_latents]` the others with the largest cosine, largest first, and the cosines: `[n_latents, n]`.

    A zero column has cosine 0 with all.
    """
    columns = torch.nn.functional.normalize(decoder.float().T, dim=-1)
    count = max(0, min(count, len(columns) - 1))
    found, cosines = [], []
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        part = columns[start : start + COLUMNS_AT_ONCE] @ columns.T
        part.diagonal(start).fill_(float("-inf"))
        top = part.topk(count, dim=-1)
        found.append(top.indices.to(torch.int32).cpu())
        cosines.append(top.values.cpu())
    return torch.cat(found), torch.cat(cosines)
