"""Completions of one prompt scored with the prompt computed once: its keys and values are kept and every completion continues them.

Exact up to rounding: a completion's token attends to the prompt and to its own completion, at the positions it has alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from sarm.data.tokens import token_budget_batches
from sarm.job import UsageProblem
from sarm.reward.baselines import GatedRewardModel, last_opening
from sarm.reward.models import RewardModel
from sarm.reward.shared_prefix import can_share
from sarm.scoring.inference import RowBatch, begins_twice

Layers = list[tuple[Tensor, Tensor]]


class Prompt(NamedTuple):
    """What is kept of a prompt: how many tokens, keys and values of each block `[heads, tokens, size]`, states `[tokens, hidden_size]`."""

    tokens: int
    layers: Layers
    states: Tensor


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with; at least one token of each row is left over."""
    limit = min(len(row) for row in rows) - 1
    first = rows[0]
    return next((place for place in range(limit) if any(row[place] != first[place] for row in rows[1:])), limit)


def chunks_of_groups(rows: Sequence[Sequence[int]], groups: Sequence[Sequence[int]], *, batch_tokens: int) -> list[list[list[int]]]:
    """Neighbouring groups of row numbers together, as long as the prompts of a chunk have at most `batch_tokens` tokens."""
    chunks: list[list[list[int]]] = []
    held = 0
    for group in groups:
        tokens = common_prefix([rows[index] for index in group])
        if not chunks or held + tokens > batch_tokens:
            chunks.append([])
            held = 0
        chunks[-1].append(list(group))
        held += tokens
    return chunks


def computed_tokens(rows: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> int:
    """Tokens that go through the model when each group's common beginning goes once."""
    prefixes = [common_prefix([rows[index] for index in group]) for group in groups]
    return sum(prefix + sum(len(rows[index]) - prefix for index in group) for prefix, group in zip(prefixes, groups, strict=True))


def refuse_windows(model: RewardModel) -> None:
    """Raises UsageProblem for a model whose blocks see a window alone: there a kept prompt is not all that a completion needs."""
    if not can_share(model.model):
        raise UsageProblem("batches = 'shared-prompts' cannot be used with attention over a window; set scoring.batches=similar-lengths")


@torch.inference_mode()
def score_chunk(
    model: RewardModel,
    rows: Sequence[Sequence[int]],
    groups: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_tokens: int,
    first_masked: bool,
) -> list[RowBatch]:
    """Rewards of the rows of some groups; each group's common beginning is computed once. Options as in `score_rows`."""
    prefixes = [common_prefix([rows[index] for index in group]) for group in groups]
    members = [(index, number) for number, group in enumerate(groups) for index in group]
    if 0 in prefixes:
        raise UsageProblem("completions of one item share no token (cut on the left?); set scoring.batches=similar-lengths")
    begun = [rows[group[0]][:prefix] for group, prefix in zip(groups, prefixes, strict=True)]
    masked = [first_masked and begins_twice(rows[group[0]]) for group in groups]
    prompts = _prompts(model, begun, masked, pad_id=pad_id, batch_tokens=batch_tokens)
    lengths = [len(rows[index]) - prefixes[number] for index, number in members]
    found = []
    for batch in token_budget_batches(lengths, batch_tokens):
        chosen = [members[place] for place in batch]
        found.append(_continued(model, rows, chosen, prompts, masked, pad_id=pad_id))
    return found


def _prompts(
    model: RewardModel, begun: Sequence[Sequence[int]], masked: Sequence[bool], *, pad_id: int, batch_tokens: int
) -> list[Prompt]:
    device = model.score.weight.device
    found: dict[int, Prompt] = {}
    for batch in token_budget_batches([len(row) for row in begun], batch_tokens):
        ids = pad_sequence([torch.tensor(begun[number]) for number in batch], batch_first=True, padding_value=pad_id).to(device)
        mask = torch.ones_like(ids)
        mask[:, 0] = torch.tensor([int(not masked[number]) for number in batch], device=device)
        cache = DynamicCache()
        # Without a BOS to hide no mask is given: causal attention has a faster kernel, and padding stands on the right.
        hidden = any(masked[number] for number in batch)
        output = model.model(input_ids=ids, attention_mask=mask if hidden else None, past_key_values=cache, use_cache=True)
        for place, number in enumerate(batch):
            tokens = len(begun[number])
            layers = [(_held(layer.keys)[place, :, :tokens], _held(layer.values)[place, :, :tokens]) for layer in cache.layers]  # type: ignore[union-attr]
            found[number] = Prompt(tokens, layers, output.last_hidden_state[place, :tokens])
    return [found[number] for number in range(len(begun))]


def _held(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a block kept no keys and values")
    return tensor


def _continued(
    model: RewardModel,
    rows: Sequence[Sequence[int]],
    chosen: Sequence[tuple[int, int]],
    prompts: Sequence[Prompt],
    masked: Sequence[bool],
    *,
    pad_id: int,
) -> RowBatch:
    """One forward pass over completions: `chosen` are (row, group)."""
    device = model.score.weight.device
    kept = [prompts[number] for _, number in chosen]
    tails = [rows[index][prompt.tokens :] for (index, _), prompt in zip(chosen, kept, strict=True)]
    ids = pad_sequence([torch.tensor(tail) for tail in tails], batch_first=True, padding_value=pad_id).to(device)
    starts = torch.tensor([prompt.tokens for prompt in kept], device=device)
    last = torch.tensor([len(tail) - 1 for tail in tails], device=device)
    output = model.model(
        input_ids=ids,
        position_ids=starts[:, None] + torch.arange(ids.shape[1], device=device),
        attention_mask=_mask(starts, torch.tensor([masked[number] for _, number in chosen], device=device), ids, model.model.dtype),
        past_key_values=_cache(kept),
        use_cache=True,
    )
    pooled = output.last_hidden_state[torch.arange(len(tails), device=device), last]
    if isinstance(model, GatedRewardModel):
        whole = [rows[index] for index, _ in chosen]
        features = model.gated_features(pooled, _prompt_ends(model.opening, whole, kept, output.last_hidden_state))
    else:
        features = model.features(pooled)
    return RowBatch([index for index, _ in chosen], model.reward_of(features).float().cpu(), features, pooled)


def _mask(starts: Tensor, masked: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Added to attention scores, `[rows, 1, seq, longest prompt + seq]`: a row's own prompt, and its completion causally."""
    longest, width = int(starts.max()), ids.shape[1]
    prompt = torch.arange(longest, device=ids.device) < starts[:, None]
    prompt[:, 0] &= ~masked
    causal = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
    seen = torch.cat([prompt[:, None].expand(-1, width, -1), causal.expand(len(ids), -1, -1)], dim=-1)
    return torch.zeros(seen.shape, dtype=dtype, device=ids.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _cache(kept: Sequence[Prompt]) -> DynamicCache:
    """Each row's prompt beside the others, padded on the right to the longest."""
    cache = DynamicCache()
    for layer in range(len(kept[0].layers)):
        keys, values = (
            pad_sequence([prompt.layers[layer][side].transpose(0, 1) for prompt in kept], batch_first=True).transpose(1, 2)
            for side in (0, 1)
        )
        cache.update(keys, values, layer)
    return cache


def _prompt_ends(opening: Sequence[int], rows: Sequence[Sequence[int]], kept: Sequence[Prompt], states: Tensor) -> Tensor:
    """The states that a gate reads, `[rows, hidden_size]`: at each row's last opening, which lies before or after the split."""
    ends = []
    for place, (row, prompt) in enumerate(zip(rows, kept, strict=True)):
        found = int(last_opening(torch.tensor([row]), torch.tensor([len(row) - 1]), opening))
        ends.append(prompt.states[found] if found < prompt.tokens else states[place, found - prompt.tokens])
    return torch.stack(ends)
