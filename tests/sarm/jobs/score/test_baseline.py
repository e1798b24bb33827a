"""Scorers without a language model: what they learn, what they write, and that they do it twice the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm.config.score import BaselineConfig
from sarm.data.preferences import Message, Preference, ScoredPreference, read_jsonl
from sarm.job import Interrupted, JobContext, Resources, UsageProblem
from sarm.jobs.score.baseline import fit, score_baseline, text_features
from sarm.metrics.pairs import pairwise_scores
from sarm.store.json_lines import write_lines

PROMPT = (Message(role="user", content="Q"),)


def pair(name: int, chosen: str, rejected: str) -> Preference:
    return Preference(id=str(name), prompt=PROMPT, chosen=(chosen,), rejected=(rejected,), subset="chat", source="s")


def longer_is_better(count: int) -> list[Preference]:
    return [pair(at, "word " * (at % 7 + 3), "word " * (at % 7 + 1)) for at in range(count)]


def polite_is_better(count: int) -> list[Preference]:
    words = ["cat", "dog", "tree", "house", "river"]
    return [pair(at, f"please see the {words[at % 5]}", f"shut up about: {words[at % 5]}") for at in range(count)]


def context(folder: Path, pairs: list[Preference], items: list[Preference], *, stop: bool = False) -> JobContext:
    for name in ("preferences", "benchmark", "output"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_lines(folder / "preferences" / "train.jsonl", pairs)
    write_lines(folder / "benchmark" / "evaluation.jsonl", items)
    return JobContext(
        inputs={"preferences": folder / "preferences", "benchmark": folder / "benchmark"},
        output=folder / "output",
        checkpoint=folder,
        resources=Resources(),
        locations={},
        progress=lambda done, total, unit, note: None,
        stop_requested=lambda: stop,
        log=lambda line: None,
    )


def config(features: str) -> BaselineConfig:
    return BaselineConfig.model_validate({"benchmark": "evaluation", "features": features})


def test_length_alone_is_the_logarithm_of_the_characters() -> None:
    assert text_features(["", "ab"], "length").toarray() == pytest.approx(np.log([[1.0], [3.0]]))


def test_length_learns_its_sign_from_the_pairs() -> None:
    longer, accuracy = fit(longer_is_better(30), features="length", regularization=1.0)
    assert longer.weights[0] > 0 and accuracy == 1.0
    turned = [pair(at, each.rejected[0], each.chosen[0]) for at, each in enumerate(longer_is_better(30))]
    shorter, _ = fit(turned, features="length", regularization=1.0)
    assert shorter.weights == pytest.approx(-longer.weights, rel=1e-4)


@pytest.mark.parametrize("features", ["length", "bag-of-words"])
def test_swapping_all_sides_negates_the_scorer(features: str) -> None:
    pairs = polite_is_better(12)
    swapped = [pair(at, each.rejected[0], each.chosen[0]) for at, each in enumerate(pairs)]
    ours, theirs = (fit(each, features=features, regularization=1.0)[0].weights for each in (pairs, swapped))
    assert theirs == pytest.approx(-ours, abs=1e-4)


def test_words_carry_over_to_new_sentences(tmp_path: Path) -> None:
    items = [pair(0, "please see the mountain", "shut up about: mountain"), pair(1, "please wait", "shut up now")]
    score_baseline(config("bag-of-words"), context(tmp_path, polite_is_better(20), items))
    rows = list(read_jsonl(tmp_path / "output" / "rewards.jsonl", ScoredPreference))
    assert pairwise_scores(rows).overall.value == 1.0


def test_every_completion_gets_its_reward_in_the_order_of_the_benchmark(tmp_path: Path) -> None:
    texts = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]
    item = Preference(id="x", prompt=PROMPT, chosen=tuple(texts[:3]), rejected=tuple(texts[3:]), subset="code", source="t")
    score_baseline(config("length"), context(tmp_path, longer_is_better(10), [item, pair(1, "a", "b")]))
    first, second = read_jsonl(tmp_path / "output" / "rewards.jsonl", ScoredPreference)
    assert (first.id, first.subset, first.source, first.truncated) == ("x", "code", "t", 0)
    rewards = first.chosen_rewards + first.rejected_rewards
    assert list(rewards) == sorted(rewards) and len(set(rewards)) == 6
    assert second.chosen_rewards == second.rejected_rewards == rewards[:1]


def test_conditions_say_what_was_trained_on(tmp_path: Path) -> None:
    score_baseline(config("length"), context(tmp_path, longer_is_better(10), [pair(0, "a", "b")]))
    facts: dict[str, Any] = json.loads((tmp_path / "output" / "conditions.json").read_text(encoding="utf-8"))
    assert (facts["features"], facts["training_pairs"], facts["items"], facts["completions"]) == ("length", 10, 1, 2)
    assert facts["training_accuracy"] == 1.0


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        score_baseline(config("bag-of-words"), context(tmp_path / name, polite_is_better(20), longer_is_better(5)))
        contents.append([(tmp_path / name / "output" / file).read_bytes() for file in ("rewards.jsonl", "conditions.json")])
    assert contents[0] == contents[1]


def test_one_pair_is_enough(tmp_path: Path) -> None:
    score_baseline(config("length"), context(tmp_path, longer_is_better(1), [pair(0, "a", "b")]))
    assert (tmp_path / "output" / "rewards.jsonl").exists()


@pytest.mark.parametrize(("pairs", "items", "message"), [(0, 1, r"preferences: train\.jsonl"), (1, 0, r"benchmark: evaluation\.jsonl")])
def test_nothing_to_train_on_or_to_score_is_refused(tmp_path: Path, pairs: int, items: int, message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        score_baseline(config("length"), context(tmp_path, longer_is_better(pairs), longer_is_better(items)))


def test_a_broken_row_is_refused_with_its_line(tmp_path: Path) -> None:
    job = context(tmp_path, longer_is_better(2), longer_is_better(2))
    (tmp_path / "benchmark" / "evaluation.jsonl").write_text('{"id": "0"}\n', encoding="utf-8")
    with pytest.raises(UsageProblem, match=r"evaluation\.jsonl:1: prompt"):
        score_baseline(config("length"), job)


def test_a_stop_request_interrupts(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        score_baseline(config("length"), context(tmp_path, longer_is_better(2), longer_is_better(2), stop=True))
