"""Metrics on small cases written out by hand, and what must not change them."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import ScoringError, count_nan, split_scores
from sarm.metrics.pairs import pairwise_scores
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores, style_credits
from sarm.metrics.ties import TiesRow, ties_score

SMALL = st.integers(-20, 20).map(float)
unhurried = settings(deadline=None, max_examples=60)


def item(subset: str, chosen: tuple[float, ...], rejected: tuple[float, ...], *, name: str = "0", source: str = "") -> ScoredPreference:
    return ScoredPreference(id=name, subset=subset, source=source, chosen_rewards=chosen, rejected_rewards=rejected)


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


def test_best_of_n_takes_scores_in_lists_of_one() -> None:
    assert best_of_n_credits([[[2.0], [1.0]]]) == [1.0]
    with pytest.raises(ScoringError, match="one number"):
        best_of_n_credits([[[2.0, 3.0], [1.0, 0.0]]])


@pytest.mark.parametrize("scores", [[], [[]], ["1.0"], [None], [True]])
def test_a_score_that_is_no_number_is_refused(scores: list[object]) -> None:
    with pytest.raises(ScoringError):
        best_of_n_credits([scores])  # type: ignore[list-item]


def test_a_flat_list_must_hold_every_score_once() -> None:
    assert split_scores([1.0, 2.0, 3.0], [2, 1]) == [[1.0, 2.0], [3.0]]
    with pytest.raises(ScoringError, match="3 scores"):
        split_scores([1.0, 2.0, 3.0], [2, 2])


@unhurried
@given(st.lists(st.lists(SMALL, min_size=1, max_size=6), max_size=8), st.sampled_from([0.5, 2.0, 4.0]), SMALL)
def test_best_of_n_does_not_change_under_scale_and_shift(items: list[list[float]], scale: float, shift: float) -> None:
    moved = [[scale * score + shift for score in scores] for scores in items]
    assert best_of_n_credits(moved) == best_of_n_credits(items)


@unhurried
@given(st.lists(st.tuples(st.lists(SMALL, min_size=2, max_size=4), st.lists(SMALL, min_size=1, max_size=4)), min_size=1), st.integers())
def test_the_ties_score_does_not_depend_on_the_order_of_rows(prompts: list[tuple[list[float], list[float]]], seed: int) -> None:
    rows = []
    for number, (correct, incorrect) in enumerate(prompts):
        rows.append(TiesRow(f"tied:{number}", len(correct), correct + incorrect))
        rows.append(TiesRow(f"ref:{number}", 1, correct[:1] + incorrect))
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert ties_score(shuffled) == pytest.approx(ties_score(rows), abs=1e-12)


@unhurried
@given(st.permutations(complete_suite()))
def test_no_metric_depends_on_the_order_of_rows(rows: list[ScoredPreference]) -> None:
    expected = rewardbench2_scores(complete_suite()).metrics
    for name, metric in rewardbench2_scores(rows).metrics.items():
        assert metric[1:] == pytest.approx(expected[name][1:], abs=1e-12)


def test_the_ties_score_of_one_prompt_by_hand() -> None:
    score = ties_score([TiesRow("ref:7", 1, [3.0, 1.0]), TiesRow("tied:07", 2, [3.0, 2.5, 1.0])])
    # gap_ref 2, gap_tied 1.5, spread 0.5: the smaller gap is three times the spread.
    assert score.correctness_margin_score == pytest.approx(math.tanh(2.0))
    assert score.overall == pytest.approx(1.0 + 0.01 * math.tanh(2.0))


def test_a_gap_equal_to_the_spread_is_not_preferred() -> None:
    score = ties_score([TiesRow("ref:0", 1, [3.0, 1.0]), TiesRow("tied:0", 2, [3.0, 2.0, 1.0])])
    assert score.correctness_preferred == 0.0 and score.correctness_margin_score == 0.0


def test_no_spread_counts_as_a_full_margin_with_the_sign_of_the_gap() -> None:
    rows = [TiesRow("ref:0", 1, [3.0, 1.0]), TiesRow("tied:0", 2, [3.0, 3.0, 1.0])]
    worse = [TiesRow("ref:0", 1, [0.0, 1.0]), TiesRow("tied:0", 2, [3.0, 3.0, 4.0])]
    equal = [TiesRow("ref:0", 1, [1.0, 1.0]), TiesRow("tied:0", 2, [3.0, 3.0, 3.0])]
    assert [ties_score(each).correctness_margin_score for each in (rows, worse, equal)] == [1.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TiesRow("seven", 1, [1.0, 0.0])], "'seven' is not"),
        ([TiesRow("tied:0", 2, [1.0, 0.0])], "no incorrect"),
        ([TiesRow("tied:0", 0, [1.0, 0.0])], "no correct"),
        ([TiesRow("tied:0", 1, [1.0, 0.0]), TiesRow("ref:0", 1, [1.0, 0.0])], "one correct answer"),
        ([TiesRow("tied:0", 2, [1.0, math.nan, 0.0])], "NaN"),
    ],
)
def test_ties_rows_without_a_score_are_refused_by_name(rows: list[TiesRow], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        ties_score(rows)


def test_style_credits_of_one_item_by_hand() -> None:
    credits = style_credits([0.0, 2.0, 1.0], [0.0, 1.0, 1.0])
    # Rows chosen: [=, <, <], [>, >, >], [>, =, =].
    assert credits.wins == pytest.approx((1 / 3, 1 / 3, 2 / 3))
    assert credits.ties == (0, 2, 1)


def test_an_rmbench_item_needs_three_and_three() -> None:
    with pytest.raises(ScoringError, match="2 chosen and 3 rejected"):
        style_credits([1.0, 2.0], [0.0, 0.0, 0.0])


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


def rmbench_item(domain: str, name: str = "0") -> ScoredPreference:
    return item(domain, (0.0, 2.0, 1.0), (0.0, 1.0, 1.0), name=name)


def test_rmbench_pools_the_safety_domains_and_averages_four() -> None:
    domains = ("chat", "math", "code", "safety-refuse", "safety-response")
    scores = rmbench_scores([rmbench_item(domain, str(at)) for at, domain in enumerate(domains)])
    assert scores.metrics["safety"].n == 2
    assert scores.require("Overall").value == pytest.approx(4 / 9)
    assert scores.require("easy").value == pytest.approx(2 / 3)
    assert scores.metrics["chat"].ties == 3


def test_a_part_of_rmbench_gives_its_domains_and_no_overall() -> None:
    scores = rmbench_scores([rmbench_item("chat"), rmbench_item("poetry")])
    assert scores.metrics["chat/hard"].value == pytest.approx(1 / 3)
    assert set(scores.missing) == {"math", "code", "safety", "hard", "normal", "easy", "Overall"}
    assert scores.unknown == {"poetry": 1}


def test_rmbench_without_domains_gives_difficulties_over_all_items() -> None:
    scores = rmbench_scores([rmbench_item(""), rmbench_item("")])
    assert set(scores.metrics) == {"hard", "normal", "easy"}
    with pytest.raises(ScoringError, match="1 of 2"):
        rmbench_scores([rmbench_item(""), rmbench_item("chat")])


def test_pairs_count_a_tie_as_one_half_and_say_so() -> None:
    rows = [
        item("", (1.0,), (rejected,), name=str(at), source=source) for at, (rejected, source) in enumerate([(0, "a"), (1, "a"), (2, "b")])
    ]
    scores = pairwise_scores(rows)
    assert (scores.overall.value, scores.overall.correct, scores.overall.ties) == (0.5, 1.5, 1)
    assert scores.by_source["a"].value == 0.75 and scores.by_source["b"].standard_error is None
    with pytest.raises(ScoringError, match="not a pair"):
        pairwise_scores([rmbench_item("chat")])
    with pytest.raises(ScoringError, match="no pairs"):
        pairwise_scores([])
