"""Rewards of many conversations: similar lengths together, the reward at the scored token alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.data.tokens import token_budget_batches
from sarm.reward.models import RewardModel


class RowBatch(NamedTuple):
    """One forward pass: which rows, their rewards `[rows]`, what the head saw `[rows, features]`, and the scored hidden states."""

    indices: list[int]
    rewards: Tensor
    features: Tensor
    pooled: Tensor


def score_rows(
    model: RewardModel,
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_tokens: int,
    first_masked: bool,
    take: Callable[[RowBatch], None],
) -> float:
    """Score rows of token ids and hand each batch to `take`; returns the share of positions that were padding.

    Rows are padded on the right and attention is causal, so no mask is needed; `first_masked` hides the first of two BOS from
    all others, as the benchmarks' pipeline does. A row cut on the left has lost one or both and is not masked.
    """
    lengths = [len(row) for row in rows]
    batches = token_budget_batches(lengths, batch_tokens)
    for indices in batches:
        take(score_batch(model, rows, indices, pad_id=pad_id, first_masked=first_masked))
    return padding_share(lengths, batches)


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the positions of padded batches of row numbers that hold no token; 0 where there is no row."""
    padded = sum(max(lengths[index] for index in indices) * len(indices) for indices in batches)
    return 1 - sum(lengths[index] for indices in batches for index in indices) / padded if padded else 0.0


def dataset_order_batches(count: int, rows: int) -> list[list[int]]:
    """Neighbours in batches of a fixed number of rows, as the official harness takes them; the last one may be smaller."""
    return [list(range(start, min(start + rows, count))) for start in range(0, count, rows)]


@torch.inference_mode()
def score_batch(model: RewardModel, rows: Sequence[Sequence[int]], indices: Sequence[int], *, pad_id: int, first_masked: bool) -> RowBatch:
    """One forward pass over some of the rows, padded on the right to the longest of them. See `score_rows`."""
    device = model.score.weight.device
    longest = max(len(rows[index]) for index in indices)
    ids = torch.full((len(indices), longest), pad_id, dtype=torch.long)
    for place, index in enumerate(indices):
        ids[place, : len(rows[index])] = torch.tensor(rows[index], dtype=torch.long)
    last = torch.tensor([len(rows[index]) - 1 for index in indices], device=device)
    mask = None
    if first_masked:
        mask = torch.ones_like(ids, device=device)
        mask[:, 0] = torch.tensor([int(not begins_twice(rows[index])) for index in indices], device=device)
    output = model(ids.to(device), last, mask)
    if output.features is None:
        raise ValueError(f"{type(model).__name__} gives no features")
    pooled = output.hidden_states[torch.arange(len(indices), device=device), last]
    return RowBatch(list(indices), output.rewards.float().cpu(), output.features, pooled)


def begins_twice(row: Sequence[int]) -> bool:
    """Whether a row's first token, which is BOS where nothing was cut off, stands there twice."""
    return len(row) > 1 and row[0] == row[1]
