from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import Stop, job_context, read_rows, same_bytes, save_word_tokenizer
from tiny_contexts import N_LATENTS, collected, item, save_sarm, write_items

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.latents import ContextConfig
from sarm.data.tokens import ConversationTokenizer
from sarm.explain.contexts import ContextFile
from sarm.job import Interrupted, UsageProblem
from sarm.jobs.latents import contexts
from sarm.jobs.latents.contexts import collect_contexts, context_rows, ender_ids, ender_latents
from sarm.reward.models import SARM, DenseRewardModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sarm(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_items(tmp_path_factory.mktemp("texts"))


def sarm_of(folder: Path) -> SARM:
    loaded = load_reward_model(folder)
    assert isinstance(loaded, SARM)
    return loaded


def test_latents_at_enders_equal_those_of_the_whole_row(model: Path) -> None:
    sarm, tokenizer = sarm_of(model), ConversationTokenizer(load_tokenizer(model))
    rows = context_rows(ContextConfig(), [item(number) for number in range(4)], tokenizer)
    for row, latents in zip(rows, ender_latents(sarm, rows, pad_id=tokenizer.pad_id, batch_tokens=100), strict=True):
        states = sarm.backbone_states(torch.tensor([row.ids]))[0]
        whole = sarm.sae.encode(sarm.sae.prepare(states)).latents
        for span, indices, values in zip(row.spans, latents.indices, latents.values, strict=True):
            torch.testing.assert_close(torch.zeros(N_LATENTS).scatter(0, indices, values), whole[span.position], rtol=1e-4, atol=1e-5)


def test_no_tensor_of_all_latents_at_all_positions_is_made(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sarm, tokenizer = sarm_of(model), ConversationTokenizer(load_tokenizer(model))
    rows = context_rows(ContextConfig(), [item(0)], tokenizer)
    seen: list[torch.Size] = []
    real = sarm.sae.pre_acts
    monkeypatch.setattr(sarm.sae, "pre_acts", lambda x: seen.append(x.shape) or real(x))  # type: ignore[func-returns-value]
    ender_latents(sarm, rows, pad_id=tokenizer.pad_id, batch_tokens=10_000)
    assert [shape[0] for shape in seen] == [sum(len(row.spans) for row in rows)]


def test_contexts_lie_in_the_assistant_turn_and_end_with_an_ender(model: Path, texts: Path, tmp_path: Path) -> None:
    output = collected(tmp_path, model, texts)
    file = ContextFile.model_validate_json((output / "contexts.json").read_bytes())
    assert file.total_latents == len(file.latent_context_map) > 3
    tokens = {token for found in file.latent_context_map.values() for token in found}
    assert tokens <= {".", "?", "!", ";", "<|eot_id|>"} and len(tokens) > 3
    every = [entry.context for found in file.latent_context_map.values() for entries in found.values() for entry in entries]
    assert not [text for text in every if "tell me" in text or "user" in text]


def test_chosen_replies_are_read_before_rejected_ones(model: Path) -> None:
    tokenizer = ConversationTokenizer(load_tokenizer(model))
    items = [item(0), item(1)]
    sides = [row.origin.side for row in context_rows(ContextConfig(), items, tokenizer)]
    assert sides == ["chosen"] * 4 + ["rejected"] * 4
    assert len(context_rows(ContextConfig(sides="rejected"), items, tokenizer)) == 4


def test_a_row_whose_header_was_cut_is_read_whole_or_left_out(model: Path) -> None:
    tokenizer = ConversationTokenizer(load_tokenizer(model))
    rows = context_rows(ContextConfig(max_length=8), [item(0)], tokenizer)
    assert not any(row.has_header for row in rows) and all(row.spans[0].start == 0 for row in rows)
    with pytest.raises(ValueError, match="raise max_length"):
        context_rows(ContextConfig(max_length=8, without_header="skip"), [item(0)], tokenizer)


def test_fused_enders_are_tokens_that_end_with_a_mark(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens([".\n\n", '."', "..x"])
    exact, fused = (ender_ids(tokenizer, kind, end_of_turn=tokenizer.eos_token) for kind in ("exact", "ending-with"))
    assert tokenizer.unk_token_id not in exact
    assert {tokenizer.convert_ids_to_tokens(number) for number in fused - exact} == {".\n\n", '."'}


def kept_texts(output: Path) -> dict[int, dict[str, list[str]]]:
    file = ContextFile.model_validate_json((output / "contexts.json").read_bytes())
    return {
        latent: {token: [entry.context for entry in entries] for token, entries in tokens.items()}
        for latent, tokens in file.latent_context_map.items()
    }


def test_the_batch_size_changes_no_context(model: Path, texts: Path, tmp_path: Path) -> None:
    one, other = (kept_texts(collected(tmp_path / str(size), model, texts, batch_tokens=size)) for size in (30, 9999))
    assert one == other


def test_each_context_has_its_origin_and_each_pool_row_its_latents(model: Path, texts: Path, tmp_path: Path) -> None:
    output = collected(tmp_path, model, texts)
    file = ContextFile.model_validate_json((output / "contexts.json").read_bytes())
    every = {entry.context for found in file.latent_context_map.values() for entries in found.values() for entry in entries}
    origins = read_rows(output / "origins.jsonl")
    assert {row["context"] for row in origins} == every
    assert {row["half"] for row in origins} == {"explain", "held-out"}
    assert {row["item"] for row in origins} <= {f"chat/{number}" for number in range(12)}
    pool, tensors = read_rows(output / "pool.jsonl"), load_file(output / "pool.safetensors")
    assert tensors["indices"].shape == tensors["values"].shape == (len(pool), 6)


def test_firing_counts_name_latents_that_never_fire(model: Path, texts: Path, tmp_path: Path) -> None:
    output = collected(tmp_path, model, texts)
    firing, facts = load_file(output / "firing.safetensors"), json.loads((output / "collection.json").read_text())
    assert int((firing["above_zero"] == 0).sum()) == facts["latents_never_active"]
    assert int(firing["above_threshold"].max()) <= facts["positions"]
    nothing = collected(tmp_path / "none", model, texts, threshold=1e6)
    assert json.loads((nothing / "contexts.json").read_text())["total_latents"] == 0
    assert (nothing / "origins.jsonl").read_text() == ""


def test_polarity_counts_items_whose_sides_differ_in_how_often_a_latent_fires(model: Path, texts: Path, tmp_path: Path) -> None:
    output = collected(tmp_path, model, texts)
    firing, config = load_file(output / "firing.safetensors"), json.loads((output / "collection.json").read_text())
    sarm, tokenizer = sarm_of(model), ConversationTokenizer(load_tokenizer(model))
    rows = context_rows(ContextConfig(), [item(number) for number in range(12)], tokenizer)
    fires: dict[str, dict[str, list[set[int]]]] = {}
    for row, latents in zip(rows, ender_latents(sarm, rows, pad_id=tokenizer.pad_id, batch_tokens=4096), strict=True):
        found = set(latents.indices[latents.values > config["threshold"]].tolist())
        fires.setdefault(row.origin.item, {"chosen": [], "rejected": []})[row.origin.side].append(found)
    for latent in range(N_LATENTS):
        more = [sum(latent in one for one in sides["chosen"]) - sum(latent in one for one in sides["rejected"]) for sides in fires.values()]
        assert int(firing["chosen_more"][latent]) == sum(one > 0 for one in more)
        assert int(firing["rejected_more"][latent]) == sum(one < 0 for one in more)
    assert int(firing["chosen_more"].max()) > 0 and int(firing["rejected_more"].max()) > 0


def test_a_stopped_collection_resumes_to_the_same_bytes(model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "ROWS_AT_ONCE", 7)
    config = ContextConfig(threshold=0.2, lines=2, max_per_token=3, pool=20)
    inputs = {"model": model, "texts": texts}
    whole = job_context(tmp_path / "whole", inputs=inputs)
    collect_contexts(config, whole)
    with pytest.raises(Interrupted):
        collect_contexts(config, job_context(tmp_path / "parts", inputs=inputs, stop=Stop(after=3)))
    stop = Stop()
    resumed = job_context(tmp_path / "parts", inputs=inputs, stop=stop)
    collect_contexts(config, resumed)
    assert stop.notes[0][0] == 28
    same_bytes(whole.output, resumed.output)


def test_a_model_without_latents_is_refused(texts: Path, tmp_path: Path) -> None:
    from tiny import HIDDEN, llama_config

    save_word_tokenizer(tmp_path / "tokenizer")
    dense = DenseRewardModel(truncated_backbone(llama_config(), 2, keep_final_norm=True), hidden_size=HIDDEN)
    save_reward_model(tmp_path / "dense", dense, encoder="none", tokenizer=tmp_path / "tokenizer")
    with pytest.raises(UsageProblem, match="need a SARM"):
        collected(tmp_path / "job", tmp_path / "dense", texts)


@pytest.mark.parametrize(("name", "content"), [("rmbench.jsonl", ""), ("other.jsonl", "")])
def test_a_missing_or_empty_file_is_refused(model: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageProblem, match=r"rmbench\.jsonl"):
        collected(tmp_path / "job", model, tmp_path)
