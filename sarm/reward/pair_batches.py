"""Micro-batches of pairs and their losses, summed so that the split into micro-batches does not matter.

Gradients of a bfloat16 model are added up in bfloat16, where it does (docs/deviations.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sarm.backbone.packed_forward import can_pack
from sarm.backbone.packed_tokens import Packed
from sarm.backbone.sending import sent
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.data.tokens import assistant_mask
from sarm.reward.losses import preference_losses
from sarm.reward.models import SARM, PooledOutput, RewardModel
from sarm.reward.shared_prefix import SharedBatch, can_share, pack, share, shared_length
from sarm.sae.model import masked_row_mean, normalized_mse

# One packed row of tokens; a row for each pair; a row for each conversation.
Layout = Literal["packed", "shared", "rows"]


class Batch(NamedTuple):
    """Chosen rows, then rejected rows, right-padded: ids `[2 pairs, seq]`, last index `[2 pairs]`, assistant mask or None."""

    input_ids: Tensor
    last_index: Tensor
    assistant: Tensor | None


def row_layout(model: RewardModel, config: RewardTrainingConfig) -> Layout:
    """The fastest exact layout that the model and its objective allow: the rule for all who make micro-batches.

    A reconstruction loss over assistant tokens needs whole conversations. Packing needs blocks that are known to be plain, a shared
    row blocks without windows.
    """
    if config.reconstruction_weight and config.reconstruction_tokens == "assistant" and isinstance(model, SARM):
        return "rows"
    if can_pack(model.model):
        return "packed"
    return "shared" if can_share(model.model) and not config.reconstruction_weight else "rows"


def reconstruction_errors(model: SARM, states: Tensor, config: RewardTrainingConfig) -> Tensor:
    """Normalised error `[...]` between prepared hidden states and their TopK reconstruction; always TopK, whatever the head sees.

    Its gradient reaches the blocks only if `reconstruction_reaches_backbone` (the released mode 2; in mode 3 hidden states are
    detached). Source: sarm_llama.py:395-425.
    """
    prepared = model.sae.prepare(states if config.reconstruction_reaches_backbone else states.detach())
    return normalized_mse(model.sae.decode(model.sae.encode(prepared).latents), prepared)


def reconstruction_loss(model: SARM, output: PooledOutput, batch: Batch, config: RewardTrainingConfig) -> Tensor:
    """Mean reconstruction error over assistant tokens (of a row, then of rows) or at the scored token."""
    states = output.hidden_states
    if config.reconstruction_tokens == "last":
        states = states[torch.arange(len(states), device=states.device), batch.last_index]
        return reconstruction_errors(model, states, config).float().mean()
    if batch.assistant is None:
        raise ValueError("the reconstruction loss over assistant tokens needs their mask")
    return masked_row_mean(reconstruction_errors(model, states, config), batch.assistant)


class Losses(NamedTuple):
    """Sum over the pairs of a micro-batch: preference loss, reconstruction loss (0 where unused), pairs ranked right.

    `each [pairs]` is the preference loss of each pair, without gradient, in the micro-batch's order.
    """

    preference: Tensor
    reconstruction: Tensor
    right: Tensor
    each: Tensor


def first_unfinite(losses: Losses) -> int:
    """Number of the first pair of a micro-batch whose loss is not finite; 0 where all are."""
    return int((~torch.isfinite(losses.each)).int().argmax())


def micro_batch_losses(model: RewardModel, batch: Batch | SharedBatch | Packed, config: RewardTrainingConfig) -> Losses:
    """Losses summed over the micro-batch's pairs, so that their total over micro-batches does not depend on the split.

    A `SharedBatch` has no reconstruction loss: its rows hold the tokens of two conversations; `Packed` pairs have it at the scored
    tokens only.
    """
    reconstruction = torch.zeros((), device=model.score.weight.device)
    if isinstance(batch, Packed):
        rewards, pooled = model.packed_rewards(batch)
        chosen, rejected = rewards[0::2], rewards[1::2]
        if config.reconstruction_weight and isinstance(model, SARM):
            reconstruction = reconstruction_errors(model, pooled, config).float().mean() * len(chosen)
    elif isinstance(batch, SharedBatch):
        chosen, rejected = model.pair_rewards(*batch).chunk(2)
    else:
        output = model(batch.input_ids, batch.last_index)
        chosen, rejected = output.rewards.chunk(2)
        if config.reconstruction_weight and isinstance(model, SARM):
            reconstruction = reconstruction_loss(model, output, batch, config) * len(chosen)
    each = preference_losses(chosen, rejected)
    return Losses(each.sum(), reconstruction, (chosen > rejected).sum(), each.detach())


def collate(pairs: Sequence[EncodedPair], *, pad_id: int, header: Sequence[int] | None, device: torch.device) -> Batch:
    """Right-padded rows, chosen first. `header` asks for assistant masks; each row ends with its end of turn."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    longest = max(len(row) for row in rows)
    numbers = [torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows]), torch.tensor([len(row) - 1 for row in rows])]
    if header is not None:
        masks = [assistant_mask(row, header, end_of_turn_id=row[-1]) for row in rows]
        numbers.append(torch.tensor([ones + [0] * (longest - len(ones)) for ones in masks]))
    ids, last, *mask = sent(numbers, device)
    return Batch(ids, last, mask[0] if mask else None)


def padded_rows(pair: EncodedPair) -> int:
    """Positions of a pair as two rows of the longer side's length."""
    return 2 * max(len(pair.chosen), len(pair.rejected))


def micro_batches(
    pairs: Sequence[EncodedPair], budget: int, size: Callable[[EncodedPair], int] = padded_rows
) -> Iterator[list[EncodedPair]]:
    """Pairs of similar size whose padded size is at most `budget` positions; each pair once."""
    largest_first = sorted(pairs, key=lambda pair: (-size(pair), pair.id))
    current: list[EncodedPair] = []
    largest = 0
    for pair in largest_first:
        largest = largest or size(pair)
        if current and largest * (len(current) + 1) > budget:
            yield current
            current, largest = [], size(pair)
        current.append(pair)
    if current:
        yield current


def packed_batches(pairs: Sequence[EncodedPair], budget: int) -> Iterator[list[EncodedPair]]:
    """Pairs whose tokens, the common prefix counted once, are at most `budget` in all; each pair once, a longer one alone."""
    current: list[EncodedPair] = []
    tokens = 0
    for pair in sorted(pairs, key=lambda pair: (-shared_length(pair), pair.id)):
        if current and tokens + shared_length(pair) > budget:
            yield current
            current, tokens = [], 0
        current.append(pair)
        tokens += shared_length(pair)
    if current:
        yield current


@dataclass(frozen=True)
class PairRows:
    """How pairs become rows of tokens: the layout, its budget of positions, and what the tensors need.

    `header` asks for assistant masks, which only conversations in rows of their own have.
    """

    layout: Layout
    budget: int
    pad_id: int
    header: Sequence[int] | None
    dtype: torch.dtype
    device: torch.device

    def size(self, pair: EncodedPair) -> int:
        """Positions that a pair takes by itself."""
        return padded_rows(pair) if self.layout == "rows" else shared_length(pair)

    def split(self, pairs: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        """Micro-batches within the budget, each pair once; a pair beyond the budget goes alone."""
        if self.layout == "packed":
            return list(packed_batches(pairs, self.budget))
        return list(micro_batches(pairs, self.budget, self.size))

    def batch(self, part: Sequence[EncodedPair]) -> Batch | SharedBatch | Packed:
        """The tensors of a micro-batch."""
        if self.layout == "packed":
            return pack(part, dtype=self.dtype, device=self.device)
        if self.layout == "shared":
            return share(part, pad_id=self.pad_id, dtype=self.dtype, device=self.device)
        return collate(part, pad_id=self.pad_id, header=self.header, device=self.device)
