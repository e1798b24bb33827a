"""Scores of the golden benchmark cases: as strict JSON writes them, in our shapes, and compared as the READMEs say."""

from __future__ import annotations

import math
from typing import Any

from golden_files import read

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import plain_scores

FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
TOLERANCE = 1e-12

Case = dict[str, Any]


def cases(file: str) -> list[Case]:
    """The cases of a benchmark's golden file."""
    return read(file)["cases"]


def name_of(case: Case) -> str:
    """How a case is called."""
    return case["name"]


def number(value: Any) -> Any:
    """A golden's number: strict JSON writes the three special floats as text."""
    return FLOATS[value] if isinstance(value, str) else value


def assert_close(ours: Any, expected: Any, what: str) -> None:
    """Equal up to 1e-12 of the larger of 1 and the value; NaN equals NaN, None None, an infinity itself."""
    expected = number(expected)
    if ours is None or expected is None or isinstance(expected, bool):
        assert ours == expected, f"{what}: {ours} instead of {expected}"
        return
    both_nan = math.isnan(ours) and math.isnan(expected)
    assert both_nan or math.isclose(ours, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE), f"{what}: {ours!r} instead of {expected!r}"


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
