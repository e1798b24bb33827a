"""Pairwise accuracy."""

from __future__ import annotations

import pytest
from scored_items import item, rmbench_item

from sarm.metrics.credits import ScoringError
from sarm.metrics.pairs import pairwise_scores


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
