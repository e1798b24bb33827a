"""The released context collection, merging, prompt and parsing: every case of `context_collection.json` and `contexts.json`."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from folders import GOLDENS

from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.data.tokens import assistant_start
from sarm.explain.collection import CollectionRules, ContextCollector, context_spans
from sarm.explain.contexts import ContextEntry, ContextFile, Origin, merge_contexts
from sarm.explain.prompts import explanation_prompt, parse_released
from sarm.jobs.latents.contexts import ContextRow, PositionLatents, ender_latents
from sarm.reward.models import SARM

SARM_FOLDER = GOLDENS / "sarm"
COVERED_FILES = {"context_collection.json", "contexts.json"}
NOWHERE = Origin("", "", 0, "explain")

needs_context_goldens = pytest.mark.skipif(not SARM_FOLDER.is_dir(), reason=f"no golden folder {SARM_FOLDER}; set SARM_GOLDENS")


def cases(file: str, part: str) -> list[Any]:
    """The cases of one part of a golden file; one placeholder when the folder is absent, so that the skip is shown."""
    return json.loads((SARM_FOLDER / file).read_text(encoding="utf-8"))[part] if SARM_FOLDER.is_dir() else ["absent"]


@cache
def collected_rows() -> tuple[dict[str, Any], list[list[int]], list[ContextRow], list[PositionLatents]]:
    """The golden file, its left-padded rows, the rows without padding, and our latents at their enders."""
    golden = json.loads((SARM_FOLDER / "context_collection.json").read_text(encoding="utf-8"))
    ids = json.loads((SARM_FOLDER / "meta.json").read_text(encoding="utf-8"))["token_ids"]
    header, enders = [ids[name] for name in ("sh", "asst", "eh", "nn")], set(golden["sentence_ender_ids"])
    rows = []
    for padded, mask in zip(golden["input_ids"], golden["attention_mask"], strict=True):
        row = padded[mask.index(1) :]
        spans = context_spans(row, start=assistant_start(row, header) or 0, enders=enders)
        rows.append(ContextRow(row, spans, NOWHERE, assistant_start(row, header) is not None, False))
    model = load_reward_model(SARM_FOLDER)
    assert isinstance(model, SARM)
    return golden, golden["input_ids"], rows, ender_latents(model, rows, pad_id=ids["pad"], batch_tokens=200)


def decode(golden: dict[str, Any], ids: list[int]) -> str:
    """As the goldens' tokenizer: tokens joined by spaces, stripped."""
    return " ".join(golden["vocab"][token] for token in ids).strip()


@needs_context_goldens
@pytest.mark.parametrize("number", range(len(cases("context_collection.json", "runs"))))
def test_contexts_are_collected_as_released(number: int) -> None:
    run = cases("context_collection.json", "runs")[number]
    golden, padded_rows, rows, latents = collected_rows()
    rules = CollectionRules(threshold=run["threshold"], max_per_token=run["max_per_token"], lines=run["lines"])
    collector = ContextCollector(rules)
    for padded, row, (indices, values) in zip(padded_rows, rows, latents, strict=True):
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


@needs_context_goldens
def test_the_golden_row_without_header_is_read_from_its_start() -> None:
    _, _, rows, _ = collected_rows()
    assert [row.has_header for row in rows].count(False) == 1


@needs_context_goldens
def test_sentence_enders_are_the_released_ones() -> None:
    from sarm.data.tokens import SENTENCE_ENDERS

    assert cases("context_collection.json", "sentence_enders") == [*SENTENCE_ENDERS, "<|eot_id|>"]


@needs_context_goldens
@pytest.mark.parametrize("number", range(len(cases("contexts.json", "merge"))))
def test_files_are_merged_as_released(number: int) -> None:
    case = cases("contexts.json", "merge")[number]
    files = [ContextFile.model_validate(file) for file in case["inputs"]]
    merged = merge_contexts(files, threshold=case["threshold"], min_entries=case["lines"], max_per_token=case["max_per_token"])
    assert json.loads(merged.model_dump_json()) == case["output"]


@needs_context_goldens
@pytest.mark.parametrize("number", range(len(cases("contexts.json", "parse_response"))))
def test_answers_are_parsed_as_released(number: int) -> None:
    case = cases("contexts.json", "parse_response")[number]
    assert parse_released(case["text"]) == (case["explanation"], case["score"])


@needs_context_goldens
def test_prompt_is_the_released_one_byte_for_byte() -> None:
    golden = json.loads((SARM_FOLDER / "contexts.json").read_text(encoding="utf-8"))["prompt"]
    contexts = [ContextEntry(context=text, activation=activation) for text, activation in golden["contexts"]]
    assert explanation_prompt(contexts) == golden["prompt"]
