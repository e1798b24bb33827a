"""Rewards of many conversations: similar lengths together, the reward at the scored token alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.data.tokens import token_budget_batches
from sarm.model import RewardModel


class RowBatch(NamedTuple):
    """One forward pass: which rows, their rewards `[rows]`, what the head saw `[rows, features]`, and the scored hidden states."""

    indices: list[int]
    rewards: Tensor
    features: Tensor
    pooled: Tensor


@torch.inference_mode()
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
    device = model.score.weight.device
    lengths = [len(row) for row in rows]
    padded = 0
    for indices in token_budget_batches(lengths, batch_tokens):
        longest = lengths[indices[0]]
        padded += longest * len(indices)
        ids = torch.full((len(indices), longest), pad_id, dtype=torch.long)
        for place, index in enumerate(indices):
            ids[place, : lengths[index]] = torch.tensor(rows[index], dtype=torch.long)
        last = torch.tensor([lengths[index] - 1 for index in indices], device=device)
        mask = None
        if first_masked:
            mask = torch.ones_like(ids, device=device)
            mask[:, 0] = torch.tensor([int(not _begins_twice(rows[index])) for index in indices], device=device)
        output = model(ids.to(device), last, mask)
        if output.features is None:
            raise ValueError(f"{type(model).__name__} gives no features")
        pooled = output.hidden_states[torch.arange(len(indices), device=device), last]
        take(RowBatch(indices, output.rewards.float().cpu(), output.features, pooled))
    return 1 - sum(lengths) / padded if padded else 0.0


def _begins_twice(row: Sequence[int]) -> bool:
    return len(row) > 1 and row[0] == row[1]
