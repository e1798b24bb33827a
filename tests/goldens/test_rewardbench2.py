"""RewardBench 2: credits, Ties, subsets and texts against the official scoring functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from golden_files import each
from golden_scores import Case, assert_close, cases, name_of, number, scored, scores_of
from transformers.utils.chat_template_utils import render_jinja_template

from sarm.data.sources import Place, rewardbench2_preference, unrolled
from sarm.metrics.credits import ScoringError, split_scores
from sarm.metrics.rewardbench2 import best_of_n_credits, rewardbench2_scores
from sarm.metrics.ties import TiesRow, ties_row_stats, ties_score


def nested(case: Case) -> bool:
    """Whether the reference saw each score in a list of its own."""
    return bool(case.get("nested_scores"))


def references(case: Case) -> list[Case]:
    """What ours must equal: the newer version of the official code, and the older one where the two agree."""
    return [case["expected"]["github"], *([case["expected"]["pypi_0_1_4"]] if case["versions_agree"] else [])]


def check_best_of_n(case: Case) -> None:
    """Credits in order and the mean of each subset, through the flat list and through items in our shape."""
    flat = [score for row in case["rows"] for score in scores_of(row, nested=nested(case))]
    counts = [row["total_completions"] for row in case["rows"]]
    for expected in references(case):
        if "error" in expected:
            with pytest.raises(ScoringError):
                best_of_n_credits(split_scores(flat, counts))
            continue
        credits = best_of_n_credits(split_scores(flat, counts))
        assert len(credits) == len(expected["results"])
        for position, (ours, theirs) in enumerate(zip(credits, expected["results"], strict=True)):
            assert_close(ours, theirs, f"credit {position}")
        check_subsets(case, credits, expected["subset_accuracy"])


def check_subsets(case: Case, credits: list[float], expected: Case) -> None:
    """The mean of each subset's credits, and our metric where the subset is one of the benchmark's."""
    items = [scored(row, nested=nested(case)) for row in case["rows"]]
    plain = [item for item in items if item.subset != "Ties"]
    metrics = rewardbench2_scores(plain, nan="count").metrics if plain else {}
    for subset, accuracy in expected.items():
        of_subset = [credit for credit, item in zip(credits, items, strict=True) if item.subset == subset]
        assert_close(math.fsum(of_subset) / len(of_subset), accuracy, subset)
        if subset in metrics:
            assert_close(metrics[subset].value, accuracy, subset)


def check_ties(case: Case) -> None:
    """Each row's margins, the five means and the overall; where the two versions differ ours is the newer one."""
    rows = [TiesRow(row["id"], row["num_correct"], scores_of(row, nested=nested(case))) for row in case["rows"]]
    policy: Any = "by-position" if case.get("direct") else "refuse"
    for expected in references(case):
        for row, stats in zip(rows, expected.get("prompt_stats", rows), strict=True):
            if "prompt_stats" in expected:
                check_prompt(row, stats)
        if "error" in expected:
            with pytest.raises(ScoringError):
                ties_score(rows, nan=policy)
            continue
        ours = ties_score(rows, nan=policy)
        for name in ours._fields:
            # The older version gives the overall alone.
            if name == "overall" or expected is case["expected"]["github"]:
                assert_close(getattr(ours, name), expected[name], name)


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
    items = [scored(row, nested=nested(case)) for row in case["rows"]]
    for expected in references(case):
        if "error" in expected:
            with pytest.raises(ScoringError):
                rewardbench2_scores(items, nan="count").require("Overall")
            continue
        scores = rewardbench2_scores(items, nan="count")
        # A score that the reference gives as NaN is missing with a reason here; a subset that is none of the six is counted as unknown.
        wanted = {
            subset: value
            for subset, value in expected["subset_scores"].items()
            if not math.isnan(number(value)) and subset not in scores.unknown
        }
        subsets = [name for name in scores.metrics if name != "Overall"]
        assert sorted(subsets) == sorted(wanted)
        for subset in subsets:
            assert_close(scores.metrics[subset].value, wanted[subset], subset)
        if len(subsets) == 6 and not scores.unknown:
            assert_close(scores.require("Overall").value, expected["mean_of_present_subsets"], "Overall")
        elif len(subsets) < 6:
            assert "Overall" in scores.missing and "Overall" not in scores.metrics


def check_unroll(case: Case) -> None:
    """Texts in the order chosen, rejected, row by row, templated without a generation prompt."""
    for expected in references(case):
        if "error" in expected:
            with pytest.raises(ValueError):
                [rewardbench2_preference(row, Place(case["name"], at)) for at, row in enumerate(case["rows"], start=1)]
            continue
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


@pytest.mark.parametrize("case", each("rewardbench2/cases.json", cases, id_of=name_of))
def test_rewardbench2_equals_the_official_code(case: Case) -> None:
    assert case["kind"] in CHECKS, f"unknown kind {case['kind']!r} of golden {case['name']}; add a check"
    CHECKS[case["kind"]](case)
