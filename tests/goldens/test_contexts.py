"""The released context collection, merging, prompt and parsing."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from golden_files import each, needs_sarm, read
from golden_model import reference

from sarm.data.tokens import SENTENCE_ENDERS, assistant_start
from sarm.explain.collection import CollectionRules, ContextCollector, context_spans
from sarm.explain.contexts import ContextEntry, ContextFile, Origin, merge_contexts
from sarm.explain.prompts import explanation_prompt, parse_released
from sarm.explain.running_collection import ContextRow, PositionLatents
from sarm.jobs.latents.contexts import ender_latents

COLLECTION, CONTEXTS = "sarm/context_collection.json", "sarm/contexts.json"
NOWHERE = Origin("", "", 0, "explain")
WITHOUT_HEADER = 6


def numbers(part: str) -> Any:
    """The numbers of the cases of one part of a file."""
    return lambda file: range(len(read(file)[part]))


@cache
def collected_rows() -> tuple[dict[str, Any], list[ContextRow], list[PositionLatents]]:
    """The golden file, its rows without padding, and our latents at their enders."""
    golden, r = read(COLLECTION), reference()
    enders = set(golden["sentence_ender_ids"])
    rows = []
    for padded, mask in zip(golden["input_ids"], golden["attention_mask"], strict=True):
        row = padded[mask.index(1) :]
        start = assistant_start(row, r.header)
        rows.append(ContextRow(row, context_spans(row, start=start or 0, enders=enders), NOWHERE, start is not None, False))
    longest = max(len(row.ids) for row in rows)
    return golden, rows, ender_latents(r.model, rows, pad_id=r.ids["pad"], batch_tokens=4 * longest)


def decode(golden: dict[str, Any], ids: list[int]) -> str:
    """As the goldens' tokenizer: tokens joined by spaces, stripped."""
    return " ".join(golden["vocab"][token] for token in ids).strip()


@pytest.mark.parametrize("number", each(COLLECTION, numbers("runs")))
def test_contexts_are_collected_as_released(number: int) -> None:
    golden, rows, latents = collected_rows()
    run = golden["runs"][number]
    rules = CollectionRules(threshold=run["threshold"], max_per_token=run["max_per_token"], lines=run["lines"])
    collector = ContextCollector(rules)
    for padded, row, (indices, values) in zip(golden["input_ids"], rows, latents, strict=True):
        shift = len(padded) - len(row.ids)
        for span, top, activations in zip(row.spans, indices, values, strict=True):
            # A row without header is read from the first column by the released code, padding included; ours has no padding.
            begin = 0 if span.start == 0 and not row.has_header else span.start + shift
            text = decode(golden, padded[begin : span.position + shift + 1])
            token = golden["vocab"][row.ids[span.position]]
            collector.add(token=token, text=text, origin=NOWHERE, latents=top.tolist(), activations=activations.tolist())
    same_contexts(collector.contexts(), run["output"])


def same_contexts(ours: dict[int, dict[str, list[ContextEntry]]], theirs: dict[str, Any]) -> None:
    """The same latents, tokens and texts in the same order; activations up to rounding."""
    assert len(ours) == theirs["total_latents"]
    assert [str(latent) for latent in ours] == list(theirs["latent_context_map"])
    for latent, tokens in ours.items():
        expected = theirs["latent_context_map"][str(latent)]
        assert list(tokens) == list(expected)
        for token, entries in tokens.items():
            assert [entry.context for entry in entries] == [entry["context"] for entry in expected[token]]
            assert [entry.activation for entry in entries] == pytest.approx([entry["activation"] for entry in expected[token]], rel=1e-4)


@needs_sarm
def test_the_golden_row_without_header_is_read_from_its_start() -> None:
    _, rows, _ = collected_rows()
    row = rows[WITHOUT_HEADER]
    assert not row.has_header
    assert row.spans[0].start == 0


@needs_sarm
def test_sentence_enders_are_the_released_ones() -> None:
    golden = read(COLLECTION)
    released = golden.get("sentence_enders") or [golden["vocab"][token] for token in golden["sentence_ender_ids"]]
    assert sorted(released) == sorted([*SENTENCE_ENDERS, "<|eot_id|>"])


@pytest.mark.parametrize("number", each(CONTEXTS, numbers("merge")))
def test_files_are_merged_as_released(number: int) -> None:
    case = read(CONTEXTS)["merge"][number]
    files = [ContextFile.model_validate(file) for file in case["inputs"]]
    merged = merge_contexts(files, threshold=case["threshold"], min_entries=case["lines"], max_per_token=case["max_per_token"])
    assert json.loads(merged.model_dump_json()) == case["output"]


@pytest.mark.parametrize("number", each(CONTEXTS, numbers("parse_response")))
def test_answers_are_parsed_as_released(number: int) -> None:
    case = read(CONTEXTS)["parse_response"][number]
    assert parse_released(case["text"]) == (case["explanation"], case["score"])


@needs_sarm
def test_prompt_is_the_released_one_byte_for_byte() -> None:
    golden = read(CONTEXTS)["prompt"]
    contexts = [ContextEntry(context=text, activation=activation) for text, activation in golden["contexts"]]
    assert explanation_prompt(contexts) == golden["prompt"]
