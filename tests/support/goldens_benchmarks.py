"""Scoring and unrolling against reference values computed by the official code; `test_goldens.py` imports these tests."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from folders import GOLDENS
from transformers.utils.chat_template_utils import render_jinja_template

from sarm.data.preferences import ScoredPreference
from sarm.data.sources import Place, rewardbench2_preference, unrolled
from sarm.metrics.credits import ScoringError, plain_scores, split_scores
from sarm.metrics.rewardbench2 import best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores, style_credits
from sarm.metrics.ties import TiesRow, ties_row_stats, ties_score

FOLDER = GOLDENS
COVERED_FILES = {"rewardbench2/cases.json", "rmbench/cases.json", "sarm/eval_scores.json"}
FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
TOLERANCE = 1e-12

Case = dict[str, Any]


def read(name: str) -> Any:
    """A golden file; skips the test with the reason where it is absent."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no goldens at {path}; set SARM_GOLDENS")
    return json.loads(path.read_text(encoding="utf-8"))


def parametrized_cases(name: str) -> list[Any]:
    """One parameter for each case of the file, named; one skipped parameter where the file is absent."""
    path = FOLDER / name
    if not path.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"no goldens at {path}; set SARM_GOLDENS"), id="absent")]
    return [pytest.param(case, id=case["name"]) for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]


def number(value: Any) -> float:
    """A golden's number: strict JSON writes the three special floats as text."""
    return FLOATS[value] if isinstance(value, str) else value


def assert_close(ours: Any, expected: Any, what: str) -> None:
    """Equal up to 1e-12; NaN equals NaN, None equals None."""
    expected = number(expected)
    if ours is None or expected is None or isinstance(expected, bool):
        assert ours == expected, f"{what}: {ours} instead of {expected}"
        return
    assert close(ours, expected), f"{what}: {ours!r} instead of {expected!r}"


def close(one: float, other: float) -> bool:
    """Equal up to 1e-12; NaN equals NaN, an infinity itself."""
    return one == other or (math.isnan(one) and math.isnan(other)) or abs(one - other) <= TOLERANCE


def scores_of(row: Case, *, nested: bool) -> list[Any]:
    """A row's scores, each in a list of its own where the reference saw them so."""
    return [[number(score)] if nested else number(score) for score in row["scores"]]


def scored(row: Case, *, nested: bool) -> ScoredPreference:
    """A row in our shape."""
    scores = plain_scores(scores_of(row, nested=nested))
    correct = row["num_correct"]
    return ScoredPreference(
        id=row["id"], subset=row["subset"], chosen_rewards=tuple(scores[:correct]), rejected_rewards=tuple(scores[correct:])
    )


def check_best_of_n(case: Case) -> None:
    """Credits in order and the mean of each subset, through the flat list and through items in our shape."""
    expected = case["expected"]["github"]
    flat = [score for row in case["rows"] for score in scores_of(row, nested=case.get("nested_scores", False))]
    if "error" in expected:
        with pytest.raises(ScoringError):
            best_of_n_credits(split_scores(flat, [row["total_completions"] for row in case["rows"]]))
        return
    credits = best_of_n_credits(split_scores(flat, [row["total_completions"] for row in case["rows"]]))
    assert len(credits) == len(expected["results"])
    for position, (ours, theirs) in enumerate(zip(credits, expected["results"], strict=True)):
        assert_close(ours, theirs, f"credit {position}")
    items = [scored(row, nested=case.get("nested_scores", False)) for row in case["rows"]]
    metrics = rewardbench2_scores([item for item in items if item.subset != "Ties"], nan="count").metrics
    for subset, accuracy in expected["subset_accuracy"].items():
        of_subset = [credit for credit, item in zip(credits, items, strict=True) if item.subset == subset]
        assert_close(math.fsum(of_subset) / len(of_subset), accuracy, subset)
        if subset in metrics:
            assert_close(metrics[subset].value, accuracy, subset)


def check_ties(case: Case) -> None:
    """Each row's margins, the five means and the overall; where the two reference versions differ ours is the newer one."""
    rows = [TiesRow(row["id"], row["num_correct"], scores_of(row, nested=case.get("nested_scores", False))) for row in case["rows"]]
    expected = case["expected"]["github"]
    if "prompt_stats" in expected:
        for row, stats in zip(rows, expected["prompt_stats"], strict=True):
            check_prompt(row, stats)
    policy: Any = "by-position" if case.get("direct") else "refuse"
    if "error" in expected:
        with pytest.raises(ScoringError):
            ties_score(rows, nan=policy)
        return
    ours = ties_score(rows, nan=policy)
    for name in ours._fields:
        assert_close(getattr(ours, name), expected[name], name)
    check_difference(ours.overall, newer=expected["overall"], older=case["expected"]["pypi_0_1_4"])


def check_difference(ours: float, *, newer: Any, older: Case) -> None:
    """Where the two reference versions give different numbers, ours is not the older one."""
    if "error" in older or close(number(newer), number(older["overall"])):
        return
    assert not close(ours, number(older["overall"])), f"{ours!r} is the score of 0.1.4, {newer!r} that of the newer version"


def check_prompt(row: TiesRow, expected: Case) -> None:
    """The margins of one row."""
    if "error" in expected:
        with pytest.raises(ScoringError):
            ties_row_stats(row, nan="by-position")
        return
    stats = ties_row_stats(row, nan="by-position")
    assert_close(stats.accurate, expected["accurate"], f"{row.id} accurate")
    assert_close(stats.spread, expected["different_correct_margin"], f"{row.id} spread")
    assert_close(stats.gap, expected["correct_incorrect_margin"], f"{row.id} gap")


def check_suite(case: Case) -> None:
    """Subset scores, and their mean: our Overall only where all six are there."""
    expected = case["expected"]["github"]
    items = [scored(row, nested=case.get("nested_scores", False)) for row in case["rows"]]
    if "error" in expected:
        with pytest.raises(ScoringError):
            rewardbench2_scores(items, nan="count").require("Overall")
        return
    scores = rewardbench2_scores(items, nan="count")
    # A score that the reference gives as NaN is missing with a reason here; a subset that is none of the six is counted as unknown.
    expected_scores = {
        subset: value
        for subset, value in expected["subset_scores"].items()
        if not math.isnan(number(value)) and subset not in scores.unknown
    }
    subsets = [name for name in scores.metrics if name != "Overall"]
    assert sorted(subsets) == sorted(expected_scores)
    for subset in subsets:
        assert_close(scores.metrics[subset].value, expected_scores[subset], subset)
    if len(subsets) == 6 and not scores.unknown:
        assert_close(scores.require("Overall").value, expected["mean_of_present_subsets"], "Overall")
    elif len(subsets) < 6:
        assert "Overall" in scores.missing and "Overall" not in scores.metrics


def check_unroll(case: Case) -> None:
    """Texts in the order chosen, rejected, row by row, templated without a generation prompt."""
    expected = case["expected"]["github"]
    if "error" in expected:
        with pytest.raises(ValueError):
            [rewardbench2_preference(row, Place(case["name"], at)) for at, row in enumerate(case["rows"], start=1)]
        return
    items = [rewardbench2_preference(row, Place(case["name"], at)) for at, row in enumerate(case["rows"], start=1)]
    texts = list(unrolled(items))
    conversations = [[message.model_dump() for message in text.messages] for text in texts]
    rendered = render_jinja_template(conversations=conversations, chat_template=case["chat_template"], add_generation_prompt=False)[0]
    assert rendered == expected["text"]
    assert [text.id for text in texts] == expected["id"]
    assert [text.subset for text in texts] == expected["subset"]
    assert [len(item.chosen) + len(item.rejected) for item in items] == expected["total_completions"]
    assert [len(item.chosen) for item in items] == expected["num_correct"]
    assert {"id", "text"} <= set(expected["columns"])


CHECKS = {"bon": check_best_of_n, "ties": check_ties, "suite": check_suite, "unroll": check_unroll}


@pytest.mark.parametrize("case", parametrized_cases("rewardbench2/cases.json"))
def test_rewardbench2_equals_the_official_code(case: Case) -> None:
    assert case["kind"] in CHECKS, f"unknown kind {case['kind']!r} of golden {case['name']}; add a check"
    CHECKS[case["kind"]](case)


@pytest.mark.parametrize("case", parametrized_cases("rmbench/cases.json"))
def test_rmbench_equals_the_official_code(case: Case) -> None:
    check_rmbench(case["results"], case["expected"])


def check_rmbench(results: list[Case], expected: Case) -> None:
    """Domains, difficulties and total; the first item decides whether the file has domains."""
    items = rmbench_items(results, with_domain=bool(results) and "domain" in results[0])
    if "error" in expected:
        with pytest.raises(ScoringError):
            rmbench_scores(items, nan="count").require("Overall")
        return
    scores = rmbench_scores(items, nan="count")
    names = {"hard_acc": "hard", "normal_acc": "normal", "easy_acc": "easy", "total_avg_acc": "Overall"}
    for key, value in expected.items():
        if key != "per_domain":
            assert_close(scores.require(names.get(key, key)).value, value, key)
    for domain, accuracies in expected.get("per_domain", {}).items():
        for key, value in accuracies.items():
            assert_close(scores.require(f"{domain}/{names[key]}").value, value, f"{domain} {key}")


def rmbench_items(results: list[Case], *, with_domain: bool) -> list[ScoredPreference]:
    """Results in our shape."""
    return [
        ScoredPreference(
            id=str(position),
            subset=result["domain"] if with_domain else "",
            chosen_rewards=tuple(number(score) for score in result["score_chosen"]),
            rejected_rewards=tuple(number(score) for score in result["score_rejected"]),
        )
        for position, result in enumerate(results)
    ]


def check_released_rmbench(block: Case) -> None:
    """The authors' copy of the RM-Bench function, with and without domains; one-element lists change nothing."""
    check_rmbench(block["inputs"], block["output"])
    check_rmbench(
        [{key: value for key, value in item.items() if key != "domain"} for item in block["inputs"]], block["output_without_domain"]
    )
    for item in block["inputs"]:
        chosen, rejected = ([number(score) for score in item[key]] for key in ("score_chosen", "score_rejected"))
        assert style_credits([[score] for score in chosen], [[score] for score in rejected]) == style_credits(chosen, rejected)


def check_released_ties(block: Case) -> None:
    """The authors' copy of the Ties score."""
    rows = [TiesRow(row["id"], row["num_correct"], scores_of(row, nested=False)) for row in block["inputs"]]
    assert_close(ties_score(rows).overall, block["overall_score"], "overall_score")


def check_released_best_of_n(block: Case) -> None:
    """The authors' copy of the best-of-n credit."""
    credits = best_of_n_credits(split_scores([number(score) for score in block["scores"]], block["total_completions"]))
    assert len(credits) == len(block["results"])
    for position, (ours, theirs) in enumerate(zip(credits, block["results"], strict=True)):
        assert_close(ours, theirs, f"credit {position}")


RELEASED_CHECKS = {"rm_bench": check_released_rmbench, "rb2_ties": check_released_ties, "rb2_best_of_n": check_released_best_of_n}


def test_benchmark_scores_equal_the_released_code() -> None:
    blocks = read("sarm/eval_scores.json")
    unknown = set(blocks) - set(RELEASED_CHECKS)
    assert not unknown, f"unknown golden blocks {sorted(unknown)}; add a check"
    assert blocks, "no golden block"
    for name, block in blocks.items():
        RELEASED_CHECKS[name](block)
