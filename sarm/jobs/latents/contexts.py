"""The contexts that activate each latent of a SARM, at the ends of the sentences of the assistant's turn.

Inputs: `model`, `texts`. Writes `contexts.json` (released form), `origins.jsonl`, `pool.jsonl`, `pool.safetensors`,
`firing.safetensors` (how often each latent fires), `collection.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.latents import ContextConfig
from sarm.data.preferences import DataError, Preference, read_jsonl
from sarm.data.tokens import (
    SENTENCE_ENDERS,
    ConversationTokenizer,
    TokenizerProblem,
    assistant_start,
    sentence_ender_ids,
    token_budget_batches,
)
from sarm.engine.checkpointer import Checkpointer
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.explain.collection import context_spans
from sarm.explain.contexts import ContextFile, Origin, prompt_half
from sarm.explain.running_collection import ContextRow, PositionLatents, RunningCollection, stacked
from sarm.job import JobContext, UsageProblem
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE
from sarm.scoring.completions import Completion, completions_of, encode_completions
from sarm.store.json_lines import write_lines

ROWS_AT_ONCE = 256
POSITIONS_AT_ONCE = 1024
# What may follow a sentence's mark inside one token: `."`, `.)`, `.\n\n`.
CLOSERS = "\"')]}*_”’ \n\r\t"


def collect_contexts(config: ContextConfig, context: JobContext) -> None:
    """Inputs: `model` (a SARM), `texts`. Writes `contexts.json` in the released form and what `_write` lists beside it.

    Latents are TopK latents whatever the head sees, as in the released code. Raises UsageProblem for a model without latents, a
    wrong file and a tokenizer without chat template.
    """
    use_threads(context.resources)
    dtype, device = torch_dtype(config.dtype), device_of(context.resources)
    model = load_reward_model(context.inputs["model"], dtype=dtype, attention=config.attention, device=device)
    if not isinstance(model, SARM):
        raise UsageProblem("contexts need a SARM; this reward model has no latents")
    if type(model.sae) is not TopKSAE:
        raise UsageProblem(f"contexts need a TopK SAE; {type(model.sae).__name__} has no fixed number of active latents")
    try:
        tokenizer = ConversationTokenizer(load_tokenizer(context.inputs["model"]), date_string=config.date_string)
        rows = context_rows(config, read_items(config, context), tokenizer)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    require_rows(model.model, (row.ids for row in rows), (f"{config.texts} item {row.origin.item!r}" for row in rows))
    pad_id = filler(model.model, tokenizer.pad_id)
    collection = RunningCollection(config, model.sae.n_latents)
    checkpoints = Checkpointer(context)
    saved = checkpoints.latest()
    if saved is not None:
        collection.restore(saved.tensors, saved.facts)
    for start in range(saved.step if saved is not None else 0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        found = ender_latents(model, part, pad_id=pad_id, batch_tokens=config.batch_tokens)
        # In the order of the rows, not of the batches: which text is seen first must not depend on the batch size.
        for row, latents in zip(part, found, strict=True):
            collection.read(row, latents, tokenizer.tokenizer)
        done = start + len(part)
        context.progress(done, len(rows), "rows", "")
        if done < len(rows) and checkpoints.due():
            checkpoints.save_if_due(done, collection.tensors(), collection.facts())
    _write(config, context, collection, rows)


def read_items(config: ContextConfig, context: JobContext) -> list[Preference]:
    """The items of the file. Raises DataError for a missing or empty file."""
    path = context.inputs["texts"] / f"{config.texts}.jsonl"
    if not path.exists():
        raise DataError(f"{path.name}: the input `texts` has no such file; choose another `texts`")
    items = list(read_jsonl(path, Preference))
    if not items:
        raise DataError(f"{path.name}: no item at all; there are no contexts to collect")
    return items[: config.limit] if config.limit else items


def context_rows(config: ContextConfig, items: Sequence[Preference], tokenizer: ConversationTokenizer) -> list[ContextRow]:
    """Rows of all chosen replies, then of all rejected ones, as released; without rows that `without_header` leaves out."""
    completions = completions_of(items)
    encoded = encode_completions(items, tokenizer, max_length=config.max_length, overlong="left", name=config.texts)
    enders = ender_ids(tokenizer.tokenizer, config.enders, end_of_turn=tokenizer.end_of_turn_text)
    header = tokenizer.assistant_header()
    halves = [prompt_half(item.prompt, held_out_fraction=config.held_out_fraction, seed=config.seed) for item in items]
    rows = []
    for side in ("chosen", "rejected") if config.sides == "both" else (config.sides,):
        for completion, (ids, truncated) in zip(completions, encoded, strict=True):
            begin = assistant_start(ids, header)
            if completion.side == side and (begin is not None or config.without_header == "whole"):
                origin = origin_of(items[completion.item], completion)._replace(half=halves[completion.item])
                rows.append(ContextRow(ids, context_spans(ids, start=begin or 0, enders=enders), origin, begin is not None, truncated))
    if not rows:
        raise DataError(f"{config.texts}: no row keeps its assistant header at max_length = {config.max_length}; raise max_length")
    return rows


def origin_of(item: Preference, completion: Completion) -> Origin:
    """Where a completion's contexts come from; items are named as in the miniature's `concepts.json`."""
    name = f"{item.subset}/{item.id}" if item.subset else item.id
    return Origin(item=name, side=completion.side, place=completion.place, half="explain")


def ender_ids(tokenizer: Any, enders: str, *, end_of_turn: str) -> frozenset[int]:
    """Ids of the tokens that end a context.

    `exact`: the first id of each mark, as released; fused tokens such as `.\\n` are none. `ending-with`: also every token whose text,
    without what closes it, ends with a mark.
    """
    exact = frozenset(sentence_ender_ids(tokenizer, end_of_turn)) - {tokenizer.unk_token_id}
    if enders == "exact":
        return exact
    marks = tuple({mark.strip() for mark in SENTENCE_ENDERS})
    texts = tokenizer.batch_decode([[number] for number in range(len(tokenizer))])
    special = set(tokenizer.all_special_ids)
    fused = {number for number, text in enumerate(texts) if number not in special and text.rstrip(CLOSERS).endswith(marks)}
    return exact | fused


@torch.inference_mode()
def ender_latents(model: SARM, rows: Sequence[ContextRow], *, pad_id: int, batch_tokens: int) -> list[PositionLatents]:
    """TopK latents at the end of each span, row by row.

    Hidden states are gathered at those positions before the SAE sees them, so that no `[batch, seq, n_latents]` exists.
    """
    device = model.score.weight.device
    nothing = PositionLatents(torch.empty(0, model.sae.k, dtype=torch.int64), torch.empty(0, model.sae.k))
    found = [nothing] * len(rows)
    wanted = [index for index, row in enumerate(rows) if row.spans]
    # Attention is causal: tokens after the last ender change nothing.
    lengths = [rows[index].spans[-1].position + 1 for index in wanted]
    for batch in token_budget_batches(lengths, batch_tokens):
        indices = [wanted[place] for place in batch]
        ids = torch.full((len(batch), lengths[batch[0]]), pad_id, dtype=torch.long)
        for line, place in enumerate(batch):
            ids[line, : lengths[place]] = torch.tensor(rows[wanted[place]].ids[: lengths[place]])
        lines = torch.tensor([line for line, index in enumerate(indices) for _ in rows[index].spans], device=device)
        positions = torch.tensor([span.position for index in indices for span in rows[index].spans], device=device)
        latents = topk_latents(model, model.backbone_states(ids.to(device))[lines, positions])
        counts = [len(rows[index].spans) for index in indices]
        for index, top, values in zip(indices, latents.indices.split(counts), latents.values.split(counts), strict=True):
            found[index] = PositionLatents(top, values)
    return found


def topk_latents(model: SARM, states: Tensor) -> PositionLatents:
    """The k latents of `[positions, hidden_size]`, some positions at a time."""
    parts = [model.sae.pre_acts(model.sae.prepare(part)).topk(model.sae.k, dim=-1) for part in states.split(POSITIONS_AT_ONCE)]
    return PositionLatents(
        indices=torch.cat([part.indices for part in parts]).cpu(), values=torch.cat([part.values for part in parts]).float().cpu()
    )


def _write(config: ContextConfig, context: JobContext, collection: RunningCollection, rows: Sequence[ContextRow]) -> None:
    """`contexts.json` (released form), `origins.jsonl` (where each of its texts was seen first), `pool.jsonl` with
    `pool.safetensors` (`indices`, `values` `[pool, k]`), `firing.safetensors` (`above_threshold`, `above_zero` `[n_latents]`:
    counts of positions; `chosen_more`, `rejected_more`: counts of items, see `polarity`), `collection.json` (counts).
    """
    kept = collection.collector.contexts()
    file = ContextFile(
        total_latents=len(kept),
        threshold=config.threshold,
        max_length=config.max_length,
        max_per_token=config.max_per_token,
        lines=config.lines,
        latent_context_map=kept,
    )
    (context.output / "contexts.json").write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
    texts = {entry.context for tokens in kept.values() for entries in tokens.values() for entry in entries}
    origins = {text: origin for text, origin in collection.collector.origins().items() if text in texts}
    write_lines(context.output / "origins.jsonl", [{"context": text, **origin._asdict()} for text, origin in origins.items()])
    entries = collection.pool.entries()
    of_pool = [{"context": entry.text, "token": entry.token, **entry.origin._asdict()} for entry in entries]
    write_lines(context.output / "pool.jsonl", of_pool)
    pool = {"indices": stacked([entry.latents for entry in entries]), "values": stacked([entry.activations for entry in entries])}
    save_file(pool, context.output / "pool.safetensors")
    firing = {"above_threshold": collection.above_threshold, "above_zero": collection.above_zero, **collection.polarity(rows)}
    save_file(firing, context.output / "firing.safetensors")
    facts = _facts(config, collection, rows, kept=len(kept), pool=len(entries))
    (context.output / "collection.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    context.log(f"{facts['positions']} contexts in {len(rows)} rows; {len(kept)} of {facts['latents']} latents kept")


def _facts(config: ContextConfig, collection: RunningCollection, rows: Sequence[ContextRow], *, kept: int, pool: int) -> dict[str, Any]:
    return {
        **config.model_dump(mode="json"),
        "rows": len(rows),
        "positions": sum(len(row.spans) for row in rows),
        "truncated_rows": sum(row.truncated for row in rows),
        "rows_without_header": sum(not row.has_header for row in rows),
        "latents": len(collection.above_zero),
        "latents_above_threshold": int((collection.above_threshold > 0).sum()),
        "latents_never_active": int((collection.above_zero == 0).sum()),
        "latents_kept": kept,
        "pool_contexts": pool,
    }
