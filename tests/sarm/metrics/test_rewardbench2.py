"""RewardBench 2: credits, subsets and Overall on small cases by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_items import item

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import ScoringError, count_nan
from sarm.metrics.pairs import pairwise_scores
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores

SMALL = st.integers(-20, 20).map(float)
unhurried = settings(deadline=None, max_examples=60)


def complete_suite() -> list[ScoredPreference]:
    rows = [item(subset, (1.0,), (0.0, 0.5, 2.0 * at), name=str(at)) for subset in REWARDBENCH2_SUBSETS[:5] for at in range(3)]
    for at in range(4):
        rows.append(item("Ties", (3.0,), (1.0, at - 0.5), name=f"ref:{at}"))
        rows.append(item("Ties", (3.0, 2.5), (1.0, at - 0.5), name=f"tied:{at}"))
    return rows


def test_best_of_n_shares_the_credit_among_equal_maxima() -> None:
    items = [[2.0, 1.0, 0.0, 0.0], [2.0, 2.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 0.0, 0.0]]
    assert best_of_n_credits(items) == [1.0, 0.5, 0.25, 0.0]


def test_best_of_n_has_no_tolerance() -> None:
    assert best_of_n_credits([[1.0, math.nextafter(1.0, 2.0)], [math.nextafter(1.0, 2.0), 1.0]]) == [0.0, 1.0]


def test_best_of_n_gives_nothing_to_an_item_with_nan() -> None:
    assert best_of_n_credits([[5.0, math.nan], [math.nan, 1.0]]) == [0.0, 0.0]


@unhurried
@given(st.lists(st.lists(SMALL, min_size=1, max_size=6), max_size=8), st.sampled_from([0.5, 2.0, 4.0]), SMALL)
def test_best_of_n_does_not_change_under_scale_and_shift(items: list[list[float]], scale: float, shift: float) -> None:
    moved = [[scale * score + shift for score in scores] for scores in items]
    assert best_of_n_credits(moved) == best_of_n_credits(items)


@unhurried
@given(st.permutations(complete_suite()))
def test_no_metric_depends_on_the_order_of_rows(rows: list[ScoredPreference]) -> None:
    expected = rewardbench2_scores(complete_suite()).metrics
    for name, metric in rewardbench2_scores(rows).metrics.items():
        assert metric[1:] == pytest.approx(expected[name][1:], abs=1e-12)


def test_overall_is_the_unweighted_mean_of_six_subsets() -> None:
    scores = rewardbench2_scores(complete_suite())
    values = [scores.metrics[subset].value for subset in REWARDBENCH2_SUBSETS]
    errors = [scores.metrics[subset].standard_error or 0.0 for subset in REWARDBENCH2_SUBSETS]
    overall = scores.require("Overall")
    assert overall.value == pytest.approx(sum(values) / 6)
    assert overall.standard_error == pytest.approx(math.hypot(*errors) / 6)
    assert list(scores.metrics) == [*REWARDBENCH2_SUBSETS, "Overall"]


def test_overall_is_missing_with_a_reason_where_a_subset_is() -> None:
    scores = rewardbench2_scores([each for each in complete_suite() if each.subset != "Focus"])
    assert "Overall" not in scores.metrics
    assert "Focus" in scores.missing["Overall"]
    with pytest.raises(ScoringError, match="Focus"):
        scores.require("Overall")


def test_items_of_an_unknown_subset_are_counted() -> None:
    scores = rewardbench2_scores([*complete_suite(), item("Humour", (1.0,), (0.0,)), item("Humour", (1.0,), (0.0,), name="1")])
    assert scores.unknown == {"Humour": 2}


def test_accuracy_comes_with_its_standard_error_and_ties() -> None:
    rows = [item("Math", (1.0,), (rejected,), name=str(at)) for at, rejected in enumerate((0.0, 0.0, 1.0, 2.0))]
    metric = rewardbench2_scores(rows).metrics["Math"]
    assert (metric.value, metric.n, metric.correct, metric.ties) == (0.625, 4, 2.5, 1)
    deviations = [0.375, 0.375, -0.125, -0.625]
    assert metric.standard_error == pytest.approx(math.sqrt(sum(value**2 for value in deviations) / 3 / 4))


def test_the_ties_standard_error_leaves_out_both_rows_of_a_prompt() -> None:
    rows = [each for each in complete_suite() if each.subset == "Ties"]
    left_out = [rewardbench2_scores([row for row in rows if not row.id.endswith(f":{at}")]).metrics["Ties"].value for at in range(4)]
    centre = sum(left_out) / 4
    expected = math.sqrt(3 / 4 * sum((value - centre) ** 2 for value in left_out))
    metric = rewardbench2_scores(rows).metrics["Ties"]
    assert metric.standard_error == pytest.approx(expected)
    assert (metric.n, metric.correct) == (8, None)


def test_ties_without_a_common_prompt_are_missing() -> None:
    scores = rewardbench2_scores([item("Ties", (1.0,), (0.0,), name="ref:0"), item("Ties", (1.0, 2.0), (0.0,), name="tied:1")])
    assert "both a ref and a tied" in scores.missing["Ties"]


@pytest.mark.parametrize("score", [rewardbench2_scores, rmbench_scores, pairwise_scores])
def test_nan_is_refused_by_name_unless_asked_to_count(score: object) -> None:
    assert callable(score)
    rows = [item("chat", (math.nan,), (0.0,), name="broken")]
    with pytest.raises(ScoringError, match="'broken'"):
        score(rows)
    assert count_nan(rows) == 1


def test_counted_nan_gives_no_credit_and_no_ties_score() -> None:
    rows = [*complete_suite(), item("Math", (math.nan,), (0.0,), name="x"), item("Ties", (math.nan,), (0.0,), name="ref:9")]
    scores = rewardbench2_scores(rows, nan="count")
    assert scores.nan_items == 2
    assert scores.metrics["Math"].n == 4
    assert "NaN" in scores.missing["Ties"] and "Overall" in scores.missing
