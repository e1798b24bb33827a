"""Recovery of planted concepts, and names against them, on pools whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained_store import explained_store, row
from fake_launcher import commit
from safetensors.numpy import save_file

from replication.report.latents.features import collect_features
from replication.report.latents.planted_names import arms, named
from replication.report.latents.recovery import Pool, read_pool, recovered, recovery_numbers

NAMES = [f"{scope}:{what}" for scope in ("reply", "sentence") for what in ("a", "b")]


def pool(*, planted: bool, seed: int = 0, prompts: int = 80) -> Pool:
    """Each prompt has three sentences and an end of turn; latents 0 and 1 are the concepts, where planted; 2 to 39 fire at random."""
    generator = np.random.default_rng(0)
    rows = prompts * 4
    own = generator.random((rows, 2)) < 0.4
    noise = np.random.default_rng(seed + 1).random((rows, 40)) * (np.random.default_rng(seed + 2).random((rows, 40)) < 0.2)
    if planted:
        noise[:, :2] = own * (1 + noise[:, :2])
    indices = np.tile(np.arange(40), (rows, 1))
    held_out = np.repeat(np.arange(prompts) % 2 == 0, 4)
    ends = np.arange(rows) % 4 == 3
    carried = np.concatenate([own & ends[:, None], own & ~ends[:, None]], axis=1)
    return Pool(indices, noise, NAMES, carried, tuple(f"p{place // 4}" for place in range(rows)), held_out, ends, threshold=0.0)


def test_a_latent_that_is_the_concept_recovers_it_and_random_ones_do_not() -> None:
    found = recovered(pool(planted=True), pool(planted=False), "sentence", seed=0)
    assert found is not None and [best.latent for best in found.ours.values()] == [0, 1]
    ours, random, difference = recovery_numbers({0: found})
    assert (ours.value, ours.low, ours.high, ours.n) == (1.0, 1.0, 1.0, 2)
    # The best of forty on the choosing half is nothing on the other: without the two halves it would be about 0.65.
    assert random.low < 0.5 < random.high and random.value < 0.6
    assert difference.value == pytest.approx(ours.value - random.value) and difference.low > 0.3
    assert (found.rows, found.prompts, found.left_out) == (120, 40, 0)
    replies = recovered(pool(planted=True), None, "reply", seed=0)
    assert replies is not None and replies.rows == 40 and [one.measure for one in recovery_numbers({0: replies})] == ["recovery"]


def test_without_the_concept_ours_is_no_better_than_random_and_seeds_are_drawn_too() -> None:
    found = {
        seed: recovered(pool(planted=False, seed=seed), pool(planted=False, seed=seed + 10), "sentence", seed=seed) for seed in (0, 1, 2)
    }
    numbers = recovery_numbers({seed: one for seed, one in found.items() if one is not None})
    over = {one.measure: one for one in numbers if one.seed is None}
    assert over.keys() == {"recovery", "recovery-random", "recovery-difference"} and over["recovery"].n == 3
    assert over["recovery-difference"].low < 0 < over["recovery-difference"].high


def test_too_few_prompts_give_no_number() -> None:
    assert recovered(pool(planted=True, prompts=8), None, "sentence", seed=0) is None


def test_a_name_is_right_when_no_concept_fits_better_on_unseen_texts() -> None:
    rows = [{**row(latent, 1.0, 1, 1), "explanation": name} for latent, name in ((0, "sentence:a"), (1, "sentence:a"), (99, "reply:a"))]
    found = named(rows, pool(planted=True))
    assert (found.right, found.judged, found.silent) == (1, 2, 1) and found.by_one_name == 1
    control = {**row(1, 1.0, 1, 1, group="control-positive"), "explanation": "sentence:b"}
    both = arms([*rows, control, {**control, "status": "unmatched"}], pool(planted=True), pool(planted=True))
    assert {name: (one.right, one.judged) for name, one in both.items()} == {"pretrained": (1, 2), "frozen random": (1, 1)}


def written(folder: Path, data: Pool) -> None:
    lines = [
        {"context": f"text{place} .", "token": "<|end|>" if end else ".", "item": prompt, "side": "chosen", "place": 0,
         "half": "held-out" if half else "explain"}
        for place, (end, prompt, half) in enumerate(zip(data.ends_turn, data.prompts, data.held_out, strict=True))
    ]  # fmt: skip
    (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "collection.json").write_text(json.dumps({"texts": "rmbench", "threshold": data.threshold}))
    save_file({"indices": data.indices.astype(np.int32), "values": data.values.astype(np.float32)}, folder / "pool.safetensors")


def labels(data: Pool) -> dict[str, Any]:
    """Sentences by text, items by prompt; a reply carries what its end of turn carries."""
    sentences, items = [], {}
    for place, carried in enumerate(data.carried):
        own = [what for column, what in enumerate("abab") if carried[column]]
        sentences.append({"text": f"text{place} .", "concepts": own})
        if data.ends_turn[place]:
            items[data.prompts[place]] = {"prompt": [], "chosen": [own], "rejected": [[]]}
    return {"sentences": sentences, "items": {"rmbench": items}}


def test_the_report_of_a_miniature_shows_recovery_and_names_as_listings_and_as_numbers(tmp_path: Path) -> None:
    made, store = explained_store(tmp_path, seeds=(0,))
    data = pool(planted=True)
    for training in made.trainings:
        assert training.contexts is not None
        arm = data if training.row.encoder == "sae" else pool(planted=False)
        commit(training.contexts, store, lambda output, arm=arm: written(output, arm))
    texts = made.trainings[0].contexts.inputs["texts"]  # type: ignore[union-attr]
    commit(texts, store, lambda output: (output / "concepts.json").write_text(json.dumps(labels(data))))
    report = collect_features(made, store, command="x")
    assert [one.name for one in report.listings][:3] == ["features-recovery", "features-concepts-seed0", "features-names-seed0"]
    told = {(one.measure, one.subject): one for one in report.planted}
    assert told["recovery", "sentence"].value == 1.0 and told["recovery-difference", "reply"].value > 0.2
    # `explained_store` names its latents "a cat", which is no planted concept.
    assert (told["names", "pretrained"].value, told["names", "pretrained"].n) == (0.0, 2)
    assert report.listings[0].rows[0][4] == "1.000 [1.000, 1.000]"
    again = read_pool(store.path(made.trainings[0].contexts), store.path(texts) / "concepts.json")  # type: ignore[arg-type]
    assert again.ends_turn.tolist() == data.ends_turn.tolist() and "sentence:a" in again.names


def test_what_is_absent_says_why(tmp_path: Path) -> None:
    made, store = explained_store(tmp_path, seeds=(0,))
    report = collect_features(made, store, command="replicate features")
    assert report.planted == () and any(": never built here; run: replicate features" in note for note in report.notes)
    real = [
        replace(one, contexts=replace(one.contexts, inputs={**one.contexts.inputs, "texts": one.contexts.inputs["model"]}))  # type: ignore[type-var, union-attr]
        for one in made.trainings
    ]
    report = collect_features(replace(made, trainings=tuple(real)), store, command="x")
    assert any("real texts have no planted concepts" in note for note in report.notes)
