"""Chosen and rejected conversations in one row: their common prefix once, then both tails, which do not see each other.

Exact, not approximate: a tail's token attends to the prefix and to its own tail, at the positions it has alone. Packed pairs have
no padding; the older form with a row for each pair and a dense mask is for decoders whose blocks are not known to be plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sarm.backbone.packed_forward import has_windows
from sarm.backbone.packed_tokens import Packed, packed
from sarm.backbone.sending import sent
from sarm.data.pairs import EncodedPair


class SharedBatch(NamedTuple):
    """Rows `[pairs, seq]` of prefix, chosen tail, rejected tail, padding.

    `mask [pairs, 1, seq, seq]` is added to attention scores; `chosen_index` and `rejected_index` `[pairs]` are the scored tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    chosen_index: Tensor
    rejected_index: Tensor


def common_prefix(pair: EncodedPair) -> int:
    """Tokens that both sides begin with, by id; at least one token of each side is left to its tail."""
    limit = min(len(pair.chosen), len(pair.rejected)) - 1
    for index in range(limit):
        if pair.chosen[index] != pair.rejected[index]:
            return index
    return limit


def shared_length(pair: EncodedPair) -> int:
    """Tokens of the pair's row."""
    return len(pair.chosen) + len(pair.rejected) - common_prefix(pair)


def can_share(backbone: nn.Module) -> bool:
    """Whether a mask of our own is all that the model's attention needs: not where some blocks see a window alone."""
    return not has_windows(backbone)


def pack(pairs: Sequence[EncodedPair], *, dtype: torch.dtype, device: torch.device) -> Packed:
    """All pairs in one row of tokens; kept are the scored tokens, in the order chosen, rejected, chosen, rejected, ...

    A pair without a common prefix is two sequences.
    """
    sequences = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    shared = [count for pair in pairs for count in (0, common_prefix(pair))]
    return packed(sequences, shared, [[len(side) - 1] for side in sequences], device=device, dtype=dtype)


def share(pairs: Sequence[EncodedPair], *, pad_id: int, dtype: torch.dtype, device: torch.device) -> SharedBatch:
    """The rows of some pairs, padded on the right to the longest."""
    prefixes = [common_prefix(pair) for pair in pairs]
    longest = max(shared_length(pair) for pair in pairs)
    ids = torch.full((len(pairs), longest), pad_id)
    positions = torch.zeros(len(pairs), longest, dtype=torch.long)
    blocked = torch.ones(len(pairs), longest, longest).triu(1).bool()
    chosen, rejected = [], []
    for row, (pair, prefix) in enumerate(zip(pairs, prefixes, strict=True)):
        first, second = len(pair.chosen), len(pair.rejected) - prefix
        ids[row, :first] = torch.tensor(pair.chosen)
        ids[row, first : first + second] = torch.tensor(pair.rejected[prefix:])
        positions[row, :first] = torch.arange(first)
        positions[row, first : first + second] = torch.arange(prefix, prefix + second)
        blocked[row, first:, prefix:first] = True
        chosen.append(first - 1)
        rejected.append(first + second - 1)
    mask = torch.zeros(blocked.shape, dtype=dtype).masked_fill(blocked, torch.finfo(dtype).min)[:, None]
    ids, positions, chosen_index, rejected_index = sent([ids, positions, torch.tensor(chosen), torch.tensor(rejected)], device)
    return SharedBatch(ids, positions, mask.to(device), chosen_index, rejected_index)
