"""Attention of many short packed sequences in one call: padded for the attention alone, everything else stays packed.

A call for each sequence costs more than it computes where sequences have some tens of tokens; padding costs nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# Longer rows lose more by padding and a dense mask than a call for each sequence costs (measured: docs/performance.md).
LONGEST_ROW = 128
FEWEST_ROWS = 4


class ShortRows(NamedTuple):
    """One row for each sequence and those that share its beginning.

    `tokens [rows, longest]` says which packed token stands where (0 where nothing does), `place [tokens]` where a token stands in the
    flattened rows, `mask [rows, 1, longest, longest]` is added to the scores. The same of the sequences' last tokens: `ends
    [rows, most]` numbers sequences, `end_place [sequences]`, `end_mask [rows, 1, most, longest]`.
    """

    tokens: Tensor
    place: Tensor
    mask: Tensor
    ends: Tensor
    end_place: Tensor
    end_mask: Tensor


def short_rows(lengths: Sequence[int], shared: Sequence[int], *, device: torch.device, dtype: torch.dtype) -> ShortRows | None:
    """Rows of sequences with `lengths[i]` tokens of their own and `shared[i]` of the one before; None where they are long or few."""
    groups: list[list[int]] = []
    for index, skip in enumerate(shared):
        if skip:
            groups[-1].append(index)
        else:
            groups.append([index])
    longest = max(sum(lengths[index] for index in group) for group in groups)
    if device.type != "cpu" or longest > LONGEST_ROW or len(groups) < FEWEST_ROWS or any(len(group) > 2 for group in groups):
        return None
    most = max(len(group) for group in groups)
    starts = [0, *accumulate(lengths)]
    tokens = torch.zeros(len(groups), longest, dtype=torch.long)
    seen = torch.zeros(len(groups), longest, longest, dtype=torch.bool)
    ends = torch.zeros(len(groups), most, dtype=torch.long)
    end_seen = torch.zeros(len(groups), most, longest, dtype=torch.bool)
    place, end_place = torch.empty(starts[-1], dtype=torch.long), torch.empty(len(lengths), dtype=torch.long)
    below = torch.ones(longest, longest, dtype=torch.bool).tril()
    # What stands nowhere looks at the first token, so that no softmax is empty.
    seen[:, :, 0] = end_seen[:, :, 0] = True
    for row, group in enumerate(groups):
        begin = 0
        for number, index in enumerate(group):
            own = slice(begin, begin + lengths[index])
            tokens[row, own] = torch.arange(starts[index], starts[index + 1])
            place[starts[index] : starts[index + 1]] = row * longest + torch.arange(begin, own.stop)
            seen[row, own, own] = below[: lengths[index], : lengths[index]]
            seen[row, own, : shared[index]] = True
            ends[row, number], end_place[index] = index, row * most + number
            end_seen[row, number] = seen[row, own.stop - 1]
            begin = own.stop
    seen[:, 0, 0] = True
    masks = [torch.zeros(one.shape, dtype=dtype).masked_fill(~one, float("-inf"))[:, None] for one in (seen, end_seen)]
    return ShortRows(tokens, place, masks[0], ends, end_place, masks[1])


def by_short_rows(query: Tensor, key: Tensor, value: Tensor, rows: ShortRows, *, ends: bool, scale: float) -> Tensor:
    """As `sarm.backbone.packed_tokens.attention`."""
    index, place, mask = (rows.ends, rows.end_place, rows.end_mask) if ends else (rows.tokens, rows.place, rows.mask)
    q, k, v = _rows_of(query, index), _rows_of(key, rows.tokens), _rows_of(value, rows.tokens)
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1).index_select(0, place)


def _rows_of(packed: Tensor, index: Tensor) -> Tensor:
    """`[tokens, heads, head_dim]` to `[rows, heads, longest, head_dim]`."""
    return packed.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
