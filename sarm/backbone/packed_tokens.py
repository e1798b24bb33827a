"""Sequences of unequal length one after the other in one row of tokens, without padding, and their attention.

A sequence attends to itself alone, or also to the beginning of the sequence before it (the prompt that two replies share).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sarm.backbone.sending import sent
from sarm.backbone.short_rows import ShortRows, by_short_rows, short_rows
from sarm.backbone.varlen import Bounds, Form, borders, by_one_kernel, form_for, numbers_of_keys, repeated_heads


class Run(NamedTuple):
    """`number` sequences of `length` tokens; each also sees the first `shared` tokens of the sequence before it (then `number` is 1)."""

    number: int
    length: int
    shared: int


class Packed(NamedTuple):
    """One row: ids and positions `[tokens]`, its runs, and which tokens' hidden states are wanted, `kept [kept]`.

    `ends_only` says that `kept` is the last token of every sequence, in order. What the attention of all blocks needs is made once:
    `bounds` where one kernel takes the row (a GPU), `rows` where the sequences are short (a CPU), and for a call for each run `masks`,
    what is added to the scores `[length, shared + length]` of a run that shares, else None.
    """

    input_ids: Tensor
    position_ids: Tensor
    runs: tuple[Run, ...]
    kept: Tensor
    ends_only: bool
    masks: tuple[Tensor | None, ...]
    rows: ShortRows | None
    bounds: Bounds | None


def packed(
    sequences: Sequence[Sequence[int]],
    shared: Sequence[int],
    kept: Sequence[Sequence[int]],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Packed:
    """Pack sequences of ids in the order given.

    `shared[i]` tokens of sequence i are the beginning of sequence i - 1 and are not repeated; `kept[i]` are positions within
    sequence i that are its own. `dtype` is that of the attention scores.
    """
    lengths = [len(sequence) - skip for sequence, skip in zip(sequences, shared, strict=True)]
    starts = [0, *accumulate(lengths)]
    rows = [start + place - skip for start, skip, places in zip(starts, shared, kept, strict=False) for place in places]
    own, skips = torch.tensor(lengths), torch.tensor(shared)
    numbers = [
        torch.tensor([*chain.from_iterable(one[skip:] for one, skip in zip(sequences, shared, strict=True))], dtype=torch.long),
        torch.arange(starts[-1]) - (torch.tensor(starts[:-1]) - skips).repeat_interleave(own),
        torch.tensor(rows, dtype=torch.long),
    ]
    form = form_for(device, dtype)
    if form is not None:
        numbers += [borders(own), torch.arange(len(own) + 1), borders(own + skips)]
        numbers += [numbers_of_keys(own, skips)] if any(shared) else []
    input_ids, position_ids, kept_rows, *for_kernel = sent(numbers, device)
    runs = _runs(lengths, shared)
    return Packed(
        input_ids=input_ids,
        position_ids=position_ids,
        runs=runs,
        kept=kept_rows,
        ends_only=all(list(places) == [len(sequence) - 1] for sequence, places in zip(sequences, kept, strict=True)),
        masks=tuple(None if form else _mask(run, device=device, dtype=dtype) for run in runs),
        # Sequences that share nothing come sorted by length, many in a call, and need no padding.
        rows=short_rows(lengths, shared, device=device, dtype=dtype) if any(shared) and not form else None,
        bounds=None if form is None else _bounds(form, runs, for_kernel),
    )


def _bounds(form: Form, runs: Sequence[Run], numbers: Sequence[Tensor]) -> Bounds:
    queries, ends, keys = (one.to(torch.int32) for one in numbers[:3])
    return Bounds(
        form=form,
        queries=queries,
        ends=ends,
        keys=keys,
        gather=numbers[3] if numbers[3:] else None,
        longest_query=max(run.length for run in runs),
        longest_key=max(run.shared + run.length for run in runs),
    )


def _runs(lengths: Sequence[int], shared: Sequence[int]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for index, (length, skip) in enumerate(zip(lengths, shared, strict=True)):
        looked_at = index + 1 < len(shared) and shared[index + 1] > 0
        if runs and not skip and not looked_at and runs[-1].length == length and not runs[-1].shared and not shared[index - 1]:
            runs[-1] = runs[-1]._replace(number=runs[-1].number + 1)
        else:
            runs.append(Run(1, length, skip))
    return tuple(runs)


def _mask(run: Run, *, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    if not run.shared:
        return None
    mask = torch.full((run.length, run.shared + run.length), float("-inf"), device=device, dtype=dtype)
    return mask.triu(run.shared + 1)


def attention(query: Tensor, key: Tensor, value: Tensor, row: Packed, *, ends: bool, scale: float) -> Tensor:
    """Causal attention inside each sequence of a row.

    Key and value `[tokens, key heads, head_dim]`; query `[tokens, heads, head_dim]`, or with `ends` the last token of each
    sequence alone, `[sequences, heads, head_dim]`. Returns the query's shape.
    """
    if row.bounds is not None:
        return by_one_kernel(query, key, value, row.bounds, ends=ends, scale=scale)
    if row.rows is not None:
        return by_short_rows(query, key, value, row.rows, ends=ends, scale=scale)
    return _by_runs(query, key, value, row, ends=ends, scale=scale)


def _by_runs(query: Tensor, key: Tensor, value: Tensor, row: Packed, *, ends: bool, scale: float) -> Tensor:
    """One call for each run: on a CPU faster than one over the whole row, whose cost is the square of its length."""
    sizes = [run.number * run.length for run in row.runs]
    # Splitting once, not slicing by turns: the backward pass of a slice fills a whole row with zeros.
    keys, values = key.split(sizes), value.split(sizes)
    queries = query.split([run.number for run in row.runs] if ends else sizes)
    parts = []
    for index, (run, mask) in enumerate(zip(row.runs, row.masks, strict=True)):
        k, v = keys[index], values[index]
        if run.shared:
            k, v = (torch.cat([whole[index - 1][: run.shared], own]) for whole, own in ((keys, k), (values, v)))
        q, k, v = (_batched(tensor, run.number) for tensor in (queries[index], k, v))
        single = ends or run.length == 1
        parts.append(_attended(q, k, v, None if single else mask, causal=not single and mask is None, scale=scale))
    return torch.cat(parts)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float) -> Tensor:
    """Attention `[count, heads, length, head_dim]` as `[count x length, heads, head_dim]`."""
    if mask is not None and query.is_cuda:
        # Of a GPU's kernels that hold no whole matrix of scores, one takes grouped heads and another a mask.
        key, value = (repeated_heads(one, query.shape[1], dim=1) for one in (key, value))
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


def _batched(tokens: Tensor, count: int) -> Tensor:
    """`[count x length, heads, head_dim]` to `[count, heads, length, head_dim]`."""
    return tokens.unflatten(0, (count, -1)).transpose(1, 2)
