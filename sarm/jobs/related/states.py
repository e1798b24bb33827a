"""One hidden state for each reply of a file of pairs or a benchmark, computed once for all heads that read it.

Inputs: `backbone`, `items`. Writes `states.safetensors` (one state a reply), `items.jsonl`, `conditions.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.config.related import HarvestConfig
from sarm.data.pairs import encode_pairs, read_pairs
from sarm.data.preferences import DataError, Preference, read_jsonl
from sarm.data.states import StatedItem, prompt_digest, write_states
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem, not_written, token_budget_batches
from sarm.engine.checkpointer import Checkpointer
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.job import JobContext, UsageProblem
from sarm.reward.sparse_model import StateReader
from sarm.scoring.completions import encode_completions, names_of
from sarm.scoring.inference import padding_share, score_batch
from sarm.scoring.progress import ScoredTokens


class Harvest(NamedTuple):
    """Items, and the token rows of their replies in the same order; how many pairs were left out; how each row is called in a message."""

    items: list[StatedItem]
    rows: list[list[int]]
    left_out: int
    names: list[str]


def harvest_states(config: HarvestConfig, context: JobContext) -> None:
    """Inputs: `backbone`, `items` (`<items>.jsonl`). Writes `states.safetensors`, `items.jsonl`, `conditions.json`.

    Raises UsageProblem for rows that cannot be encoded, Interrupted with a checkpoint when a stop was requested.
    """
    use_threads(context.resources)
    folder = context.inputs["backbone"]
    try:
        tokenizer = ConversationTokenizer(load_tokenizer(folder), date_string=config.date_string, bos=config.bos)
        harvest = _pairs(config, context, tokenizer) if config.items == "train" else _completions(config, context, tokenizer)
        header = tokenizer.assistant_header() if config.pooling == "mean" else ()
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    dtype, device = torch_dtype(config.dtype), device_of(context.resources)
    backbone = load_truncated_backbone(folder, layer=config.layer, dtype=dtype, attention=config.attention, device=device)
    require_rows(backbone, harvest.rows, harvest.names)
    pad_id = filler(backbone, tokenizer.pad_id)
    reader = StateReader(backbone, hidden_size=backbone.config.hidden_size, pooling=config.pooling, header=header)
    states, padding = _states(reader.to(device).eval(), harvest.rows, pad_id, config, context)
    write_states(context.output, harvest.items, states.to(dtype))
    facts = {
        **config.model_dump(mode="json"),
        "read_items": len(harvest.items),
        "left_out": harvest.left_out,
        "replies": len(harvest.rows),
        "tokens": sum(len(row) for row in harvest.rows),
        "truncated": sum(item.truncated for item in harvest.items),
        "padding_share": round(padding, 6),
        **not_written(tokenizer.unwritten),
    }
    (context.output / "conditions.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _pairs(config: HarvestConfig, context: JobContext, tokenizer: ConversationTokenizer) -> Harvest:
    """The pairs that reward training would see: the same are dropped, the same are cut."""
    pairs = read_pairs(context.inputs["items"] / "train.jsonl", config.max_pairs)
    encoded, counts = encode_pairs(
        pairs, tokenizer, max_length=config.max_length, overlong=config.overlong, refused_turns=config.refused_turns
    )
    kept = [pairs[one.place] for one in encoded]
    items = [StatedItem(id=pair.id, source=pair.source, prompt=prompt_digest(pair.prompt), chosen=1, rejected=1) for pair in kept]
    rows = [side for one in encoded for side in (one.chosen, one.rejected)]
    names = [f"pair {pair.id!r}" for pair in kept for _ in ("chosen", "rejected")]
    return Harvest(items, rows, counts.dropped + counts.identical + counts.refused, names)


def _completions(config: HarvestConfig, context: JobContext, tokenizer: ConversationTokenizer) -> Harvest:
    """Every reply of a benchmark, as scoring reads it."""
    found = list(read_jsonl(context.inputs["items"] / f"{config.items}.jsonl", Preference))
    found = [item for item in found if config.subset in ("", item.subset)]
    found = found[: config.limit] if config.limit else found
    if not found:
        which = f" of subset {config.subset!r}" if config.subset else ""
        raise DataError(f"{config.items}.jsonl has no item{which}; there is no state to keep")
    rows = encode_completions(found, tokenizer, max_length=config.max_length, overlong=config.overlong, name=config.items)
    items, start = [], 0
    for one in found:
        count = len(one.chosen) + len(one.rejected)
        cut = sum(row.truncated for row in rows[start : start + count])
        items.append(
            StatedItem(
                id=one.id,
                subset=one.subset,
                source=one.source,
                prompt=prompt_digest(one.prompt),
                chosen=len(one.chosen),
                rejected=len(one.rejected),
                truncated=cut,
            )
        )
        start += count
    return Harvest(items, [row.ids for row in rows], 0, names_of(found, config.items))


def _states(
    reader: StateReader, rows: Sequence[Sequence[int]], pad_id: int, config: HarvestConfig, context: JobContext
) -> tuple[Tensor, float]:
    """States `[rows, hidden_size]` in the order of the rows, on the CPU, and the share of padded positions; resumes after a batch."""
    lengths = [len(row) for row in rows]
    batches = token_budget_batches(lengths, config.batch_tokens)
    checkpoints = Checkpointer(context)
    saved = checkpoints.latest()
    found = saved.tensors["states"] if saved else torch.zeros(len(rows), reader.score.in_features, dtype=torch_dtype(config.dtype))
    first_masked = config.bos == "double-first-masked"
    scored = ScoredTokens(rows, context.progress, called="replies")
    first = saved.step if saved else 0
    for before in batches[:first]:
        scored.skip(before)
    for number in range(first, len(batches)):
        batch = score_batch(reader, rows, batches[number], pad_id=pad_id, first_masked=first_masked)
        found[batch.indices] = batch.features.to(found.dtype).cpu()
        scored.add(batches[number])
        if number + 1 < len(batches):
            checkpoints.save_if_due(number + 1, {"states": found}, {})
    return found, padding_share(lengths, batches)
