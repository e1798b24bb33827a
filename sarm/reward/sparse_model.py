"""Reward models whose backbone is frozen: a state reader, and a SparseRM or SAFER head on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sarm.data.tokens import assistant_start
from sarm.reward.models import FixedHead, PooledOutput, RewardModel
from sarm.reward.sparse_rm import StateHead

Pooling = Literal["end_of_turn", "last_content", "mean"]


class StateReader(RewardModel):
    """No reward yet: its features are the pooled state of each row. `header` are the ids of the assistant's header, for `mean`."""

    def __init__(self, backbone: PreTrainedModel, *, hidden_size: int, pooling: Pooling, header: Sequence[int] = ()) -> None:
        super().__init__(backbone, FixedHead(torch.zeros(hidden_size)))
        self.pooling = pooling
        self.header = tuple(header)

    def features(self, pooled: Tensor) -> Tensor:
        """The state itself. Raises ValueError where another token than the last is asked for: only `forward` can give that."""
        if self.pooling != "end_of_turn":
            raise ValueError(f"pooling = {self.pooling!r} needs all states of a row, not the last one")
        return pooled

    def forward(self, input_ids: Tensor, last_index: Tensor, attention_mask: Tensor | None = None) -> PooledOutput:
        """As of every reward model; `features` are the pooled states `[batch, hidden_size]`."""
        states = self.backbone_states(input_ids, attention_mask)
        rows = torch.arange(len(states), device=states.device)
        if self.pooling == "mean":
            ends = zip(states, input_ids.tolist(), last_index.tolist(), strict=True)
            pooled = torch.stack([self._mean(row, ids, last) for row, ids, last in ends])
        else:
            pooled = states[rows, last_index if self.pooling == "end_of_turn" else (last_index - 1).clamp(min=0)]
        return PooledOutput(rewards=self.reward_of(pooled), hidden_states=states, features=pooled)

    def _mean(self, states: Tensor, ids: Sequence[int], last: int) -> Tensor:
        """Mean over the reply's tokens before its end of turn; of the whole row where the header was cut off."""
        start = assistant_start(ids[: last + 1], self.header) or 0
        return states[min(start, last) : last].mean(dim=0) if last > start else states[last]


class SparseRewardModel(RewardModel):
    """A frozen truncated backbone with a `StateHead` at the end-of-turn token; the head computes in float32."""

    def __init__(self, backbone: PreTrainedModel, head: StateHead) -> None:
        super().__init__(backbone, head.score)
        self.head = head

    def features(self, pooled: Tensor) -> Tensor:
        """What the output layer sees: `[..., hidden_size]` to `[..., features]`."""
        return self.head.features_of(self.head.reader(pooled))
