"""Sequences of unequal length one after the other in one row of tokens, without padding, and their attention.

A sequence attends to itself alone, or also to the beginning of the sequence before it (the prompt that two replies share).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from sarm.backbone.short_rows import ShortRows, by_short_rows, short_rows

# What the kernel of torch for packed sequences (Flash Attention) takes.
VARLEN_DTYPES = (torch.bfloat16, torch.float16)


class Run(NamedTuple):
    """`number` sequences of `length` tokens; each also sees the first `shared` tokens of the sequence before it (then `number` is 1)."""

    number: int
    length: int
    shared: int


class Packed(NamedTuple):
    """One row: ids and positions `[tokens]`, its runs, and which tokens' hidden states are wanted, `kept [kept]`.

    `ends_only` says that `kept` is the last token of every sequence, in order. `masks` holds for each run what is added to the
    attention scores `[length, shared + length]` where it shares, else None; one tensor for all blocks. `rows` is how the attention is
    computed in one call, where the sequences are short.
    """

    input_ids: Tensor
    position_ids: Tensor
    runs: tuple[Run, ...]
    kept: Tensor
    ends_only: bool
    masks: tuple[Tensor | None, ...]
    rows: ShortRows | None


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
    own = [sequence[skip:] for sequence, skip in zip(sequences, shared, strict=True)]
    starts = [0, *accumulate(len(ids) for ids in own)]
    positions = [position for ids, skip in zip(own, shared, strict=True) for position in range(skip, skip + len(ids))]
    rows = [start + place - skip for start, skip, places in zip(starts, shared, kept, strict=False) for place in places]
    ends = all(list(places) == [len(sequence) - 1] for sequence, places in zip(sequences, kept, strict=True))
    runs = _runs([len(ids) for ids in own], shared)
    return Packed(
        input_ids=torch.tensor([token for ids in own for token in ids], device=device),
        position_ids=torch.tensor(positions, device=device),
        runs=runs,
        kept=torch.tensor(rows, device=device),
        ends_only=ends,
        masks=tuple(_mask(run, device=device, dtype=dtype) for run in runs),
        # Sequences that share nothing come sorted by length, many in a call, and need no padding.
        rows=short_rows([len(ids) for ids in own], shared, device=device, dtype=dtype) if any(shared) else None,
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
    if query.is_cuda and query.dtype in VARLEN_DTYPES:
        return _by_one_kernel(query, key, value, row, ends=ends, scale=scale)
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
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=None if single else mask, is_causal=not single and mask is None, scale=scale, enable_gqa=True
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _batched(tokens: Tensor, count: int) -> Tensor:
    """`[count x length, heads, head_dim]` to `[count, heads, length, head_dim]`."""
    return tokens.unflatten(0, (count, -1)).transpose(1, 2)


def _by_one_kernel(query: Tensor, key: Tensor, value: Tensor, row: Packed, *, ends: bool, scale: float) -> Tensor:
    """One call of the kernel for packed sequences; shared beginnings are gathered. Causal masks there end at the bottom right."""
    queries, keys, gather, start, previous = [0], [0], [], 0, 0
    for run in row.runs:
        for _ in range(run.number):
            # What is shared is the beginning of the sequence before this one.
            gather += [*range(previous, previous + run.shared), *range(start, start + run.length)]
            queries.append(queries[-1] + (1 if ends else run.length))
            keys.append(keys[-1] + run.shared + run.length)
            start, previous = start + run.length, start
    longest = max(run.length for run in row.runs)
    if any(run.shared for run in row.runs):
        index = torch.tensor(gather, device=key.device)
        key, value = key[index], value[index]
    out = varlen_attn(
        query,
        key,
        value,
        torch.tensor(queries, device=query.device, dtype=torch.int32),
        torch.tensor(keys, device=query.device, dtype=torch.int32),
        1 if ends else longest,
        max(run.shared + run.length for run in row.runs),
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    return out if isinstance(out, Tensor) else out[0]
