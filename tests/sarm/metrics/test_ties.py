"""The Ties score by hand, and what must not change it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm.metrics.credits import ScoringError
from sarm.metrics.ties import TiesRow, ties_left_out, ties_prompts, ties_score

SMALL = st.integers(-20, 20).map(float)
unhurried = settings(deadline=None, max_examples=60)


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
@given(st.lists(st.tuples(st.sampled_from(["both", "ref", "tied"]), st.lists(SMALL, min_size=3, max_size=5)), min_size=1))
def test_scores_without_each_prompt_are_those_of_the_other_prompts(prompts: list[tuple[str, list[float]]]) -> None:
    rows = [TiesRow(f"ref:{number}", 1, scores) for number, (kind, scores) in enumerate(prompts) if kind != "tied"]
    rows += [TiesRow(f"tied:{number}", 2, scores) for number, (kind, scores) in enumerate(prompts) if kind != "ref"]
    others = [[row for row in rows if row.id.partition(":")[2] != str(number)] for number in range(len(prompts))]
    expected = [ties_score(kept).overall for kept in others]
    assert ties_left_out(ties_prompts(rows)) == pytest.approx(expected, abs=1e-12, nan_ok=True)


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
