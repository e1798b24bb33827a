"""The Ties subset of RewardBench 2: several right answers, whose rewards should lie close together and above the wrong ones.

Source: process_single_model of allenai/reward-bench @ 05a9005.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sarm.metrics.credits import Score, ScoringError, mean, plain_scores


class TiesRow(NamedTuple):
    """A row of the Ties subset: `id` is `ref:N` or `tied:N`; the first `num_correct` scores are of correct answers."""

    id: str
    num_correct: int
    scores: Sequence[Score]


class PromptStats(NamedTuple):
    """`gap` = min(correct) - max(incorrect); `spread` = max(correct) - min(correct), None with one correct answer."""

    accurate: bool
    spread: float | None
    gap: float


class TiesScore(NamedTuple):
    """The Ties score and the five means it is made of. NaN where no prompt has both a ref and a tied row."""

    overall: float
    ref_accuracy: float
    tied_accuracy: float
    correctness_preferred: float
    correctness_preferred_hard: float
    correctness_margin_score: float


def prompt_stats(correct: Sequence[float], incorrect: Sequence[float], *, name: str) -> PromptStats:
    """Margins of one prompt. Raises ScoringError without a correct or without an incorrect answer.

    Python's min and max keep the earlier value where a comparison is false, so NaN acts by its position, as officially.
    """
    if not correct or not incorrect:
        raise ScoringError(f"Ties row {name!r} has no {'incorrect' if correct else 'correct'} answer; both are needed for a margin")
    gap = min(correct) - max(incorrect)
    spread = max(correct) - min(correct) if len(correct) > 1 else None
    return PromptStats(accurate=gap > 0, spread=spread, gap=gap)


def ties_row_stats(row: TiesRow, *, nan: Literal["refuse", "by-position"] = "refuse") -> PromptStats:
    """Margins of one row alone."""
    correct, incorrect = _sides(row, nan)
    return prompt_stats(correct, incorrect, name=row.id)


def ties_score(rows: Sequence[TiesRow], *, nan: Literal["refuse", "by-position"] = "refuse") -> TiesScore:
    """The Ties score, -0.01 to 1.01. Source: process_single_model.

    Rows of one (ref or tied, N) are pooled. Raises ScoringError for an id that is not `type:N`, for NaN (`refuse`, as the
    official script fails there), for a side without answers, and for a tied prompt with one correct answer beside its ref.
    """
    return ties_from_prompts(ties_prompts(rows, nan))


def _sides(row: TiesRow, nan: str) -> tuple[list[float], list[float]]:
    scores = plain_scores(row.scores)
    if row.num_correct < 0 or (nan == "refuse" and any(math.isnan(score) for score in scores)):
        raise ScoringError(f"Ties row {row.id!r} has a NaN score or num_correct < 0; score it again")
    return scores[: row.num_correct], scores[row.num_correct :]


def ties_prompts(rows: Sequence[TiesRow], nan: str) -> dict[tuple[bool, int], PromptStats]:
    pooled: dict[tuple[bool, int], tuple[list[float], list[float]]] = {}
    for row in rows:
        kind, _, number = row.id.partition(":")
        try:
            key = (kind == "ref", int(number))
        except ValueError as error:
            raise ScoringError(f"Ties row id {row.id!r} is not 'ref:N' or 'tied:N'") from error
        correct, incorrect = _sides(row, nan)
        sides = pooled.setdefault(key, ([], []))
        sides[0].extend(correct)
        sides[1].extend(incorrect)
    return {
        key: prompt_stats(correct, incorrect, name=f"{'ref' if key[0] else 'tied'}:{key[1]}")
        for key, (correct, incorrect) in pooled.items()
    }


def ties_from_prompts(prompts: Mapping[tuple[bool, int], PromptStats]) -> TiesScore:
    ref_accuracy = mean((stats.accurate for (is_ref, _), stats in prompts.items() if is_ref), empty=0.0)
    tied_accuracy = mean((stats.accurate for (is_ref, _), stats in prompts.items() if not is_ref), empty=0.0)
    preferred, preferred_hard, margins = [], [], []
    for (is_ref, number), tied in prompts.items():
        ref = prompts.get((True, number))
        if is_ref or ref is None:
            continue
        if tied.spread is None:
            raise ScoringError(f"Ties row 'tied:{number}' has one correct answer, so no spread to compare with; it needs two or more")
        smaller = math.nan if math.isnan(ref.gap) or math.isnan(tied.gap) else min(ref.gap, tied.gap)
        preferred.append(tied.gap > tied.spread)
        preferred_hard.append(smaller > tied.spread)
        margin = math.tanh(_ratio(smaller, tied.spread) - 1)
        margins.append(0.0 if math.isnan(margin) else margin)
    means = [mean(values) for values in (preferred, preferred_hard, margins)]
    overall = 0.30 * tied_accuracy + 0.30 * ref_accuracy + 0.20 * means[0] + 0.20 * means[1] + 0.01 * means[2]
    return TiesScore(overall, ref_accuracy, tied_accuracy, *means)


def _ratio(numerator: float, denominator: float) -> float:
    """IEEE division: x/0 is infinite with the sign of both, 0/0 is NaN (Python raises instead)."""
    if denominator != 0:
        return numerator / denominator
    if numerator == 0 or math.isnan(numerator):
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)
