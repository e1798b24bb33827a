"""Scores as they come from a model: credits of best-of-n, what is no number, how a flat list is cut."""

from __future__ import annotations

import pytest

from sarm.metrics.credits import ScoringError, split_scores
from sarm.metrics.rewardbench2 import best_of_n_credits


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
