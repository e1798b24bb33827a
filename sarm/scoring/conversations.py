"""Rewards of conversations, and the latents that made each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.data import notebook
from sarm.job import UsageProblem
from sarm.reward.losses import attribution
from sarm.reward.models import SARM, RewardModel
from sarm.reward.sparse_model import SparseRewardModel
from sarm.reward.sparse_rm import Activations
from sarm.scoring.inference import RowBatch, score_rows

if TYPE_CHECKING:
    import pandas


class LatentContribution(NamedTuple):
    """One latent of one reward: its number, its activation, the head's weight on it, and their product."""

    latent: int
    activation: float
    weight: float
    contribution: float

    def to_frame(self) -> pandas.DataFrame:
        """One row."""
        return notebook.frame(notebook.by_field([self], self._fields))

    def _repr_html_(self) -> str:
        values = {"activation": self.activation, "weight": self.weight, "contribution": self.contribution}
        return notebook.facts(f"latent {self.latent}", values)


@dataclass(frozen=True)
class ExplainedReward:
    """A reward and its parts: the contributions of `latents`, `rest` and `bias` sum to `reward` up to float32 rounding.

    `latents` stand by absolute contribution, largest first, inactive ones left out; `rest` sums the contributions of those that are
    not listed. `bias` is what the head gives without any latent: 0 for a SARM and for SAFER.
    """

    reward: float
    latents: tuple[LatentContribution, ...]
    rest: float
    bias: float

    def to_frame(self) -> pandas.DataFrame:
        """A row for each latent that is listed; `rest` and `bias` stand in the object."""
        return notebook.frame(notebook.by_field(self.latents, LatentContribution._fields))

    def _repr_html_(self) -> str:
        parts = f"latents listed {sum(one.contribution for one in self.latents):.5g}, rest {self.rest:.5g}, bias {self.bias:.5g}"
        return notebook.table(f"reward {self.reward:.5g}", notebook.by_field(self.latents, LatentContribution._fields), note=parts)


class NamedRows(NamedTuple):
    """Conversations as token ids, how each is called in a message, the id that fills shorter ones; how the longest length is called."""

    ids: Sequence[Sequence[int]]
    names: Sequence[str]
    pad_id: int
    limit: str = "max_length"


def unheard(indices: Sequence[int]) -> None:
    """Progress that nobody listens to."""


def head_latents(model: RewardModel, *, name: str) -> Tensor:
    """The SAE's number of each of the head's features, `[features]`.

    Raises UsageProblem that names the model where the reward is not linear in latents: only a SARM and a linear head on some
    latents (SAFER, SparseRM with inputs = activations and head = linear) are.
    """
    if isinstance(model, SARM):
        return torch.arange(model.sae.n_latents)
    if isinstance(model, SparseRewardModel) and isinstance(model.head.reader, Activations) and model.head.hidden is None:
        return model.head.reader.chosen.cpu()
    raise UsageProblem(f"{name}: attribution needs a SARM or a linear head on latents; this reward model has none; ask for rewards alone")


def conversation_rewards(
    model: RewardModel, rows: NamedRows, *, batch_tokens: int, told: Callable[[Sequence[int]], None] = unheard
) -> list[float]:
    """The reward of each row, in their order; `told` hears after each batch the places of its rows.

    Raises UsageProblem that names a conversation whose reward is not finite, and one that the model cannot read (`require_rows`).
    """
    rewards = [math.nan] * len(rows.ids)

    def take(batch: RowBatch) -> None:
        _require_finite(batch, rows.names)
        for index, reward in zip(batch.indices, batch.rewards.tolist(), strict=True):
            rewards[index] = reward
        told(batch.indices)

    require_rows(model.model, rows.ids, rows.names, limit=rows.limit)
    pad_id = filler(model.model, rows.pad_id)
    score_rows(model, rows.ids, pad_id=pad_id, batch_tokens=batch_tokens, first_masked=False, take=take)
    return rewards


def explained_rewards(
    model: RewardModel,
    rows: NamedRows,
    *,
    latents: Tensor,
    top: int,
    batch_tokens: int,
    told: Callable[[Sequence[int]], None] = unheard,
) -> list[ExplainedReward]:
    """As `conversation_rewards`, with the `top` latents of each; `latents` are those of `head_latents`."""
    found: dict[int, ExplainedReward] = {}
    weights = model.score.weight[0].detach()
    with torch.inference_mode():
        bias = float(model.reward_of(torch.zeros_like(weights)))

    def take(batch: RowBatch) -> None:
        _require_finite(batch, rows.names)
        shares = attribution(batch.features, weights, top)
        contributions = batch.features.float() * weights.float()
        rest = contributions.scatter(-1, shares.latents, 0.0).sum(dim=-1)
        for place, index in enumerate(batch.indices):
            columns = (latents[shares.latents[place].cpu()], *(values[place] for values in shares[1:]))
            listed = [LatentContribution(*values) for values in zip(*(one.tolist() for one in columns), strict=True)]
            active = tuple(one for one in listed if one.activation != 0)
            found[index] = ExplainedReward(reward=float(batch.rewards[place]), latents=active, rest=float(rest[place]), bias=bias)
        told(batch.indices)

    require_rows(model.model, rows.ids, rows.names, limit=rows.limit)
    pad_id = filler(model.model, rows.pad_id)
    score_rows(model, rows.ids, pad_id=pad_id, batch_tokens=batch_tokens, first_masked=False, take=take)
    return [found[index] for index in range(len(rows.ids))]


def _require_finite(batch: RowBatch, names: Sequence[str]) -> None:
    for index, reward in zip(batch.indices, batch.rewards, strict=True):
        if not torch.isfinite(reward):
            raise UsageProblem(f"{names[index]}: the reward is not finite; score in another dtype or look at the weights")
