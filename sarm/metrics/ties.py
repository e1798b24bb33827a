"""The Ties subset of RewardBench 2: several right answers, whose rewards should lie close together and above the wrong ones.

Source: process_single_model of allenai/reward-bench @ 05a9005.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import Score, ScoringError, plain_scores


class TiesRow(NamedTuple):
    """A row of the Ties subset: `id` is `ref:N` or `tied:N`; the first `num_correct` scores are of correct answers."""

    id: str
    num_correct: int
    scores: Sequence[Score]

    @classmethod
    def of(cls, item: ScoredPreference) -> TiesRow:
        """The row of an item, whose chosen replies are the correct answers."""
        return cls(item.id, len(item.chosen_rewards), item.chosen_rewards + item.rejected_rewards)


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


def ties_prompts(rows: Sequence[TiesRow], nan: Literal["refuse", "by-position"] = "refuse") -> dict[tuple[bool, int], PromptStats]:
    """Margins by (ref or tied, N), rows of one pooled. Raises ScoringError as `ties_score`."""
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
    """The score of prompts by (ref or tied, N). Raises ScoringError for a tied prompt with one correct answer beside its ref."""
    return _score(_added(_parts(prompts).values()))


def ties_left_out(prompts: Mapping[tuple[bool, int], PromptStats]) -> list[float]:
    """Overall without each N in turn, its ref and its tied row together, in the order of N: what a jackknife over prompts needs.

    Each N's share is taken from the sums, so that n scores cost as much as one. Raises as `ties_from_prompts`, of any prompt.
    """
    parts = _parts(prompts)
    whole = _added(parts.values())
    return [_score(_Parts._make(total - own for total, own in zip(whole, parts[number], strict=True))).overall for number in sorted(parts)]


class _Parts(NamedTuple):
    """What a prompt N, or several together, gives to the score: how many rows of each kind, and sums over them."""

    refs: int
    refs_accurate: int
    tied: int
    tied_accurate: int
    pairs: int
    preferred: int
    preferred_hard: int
    margins: float


_NOTHING = _Parts(0, 0, 0, 0, 0, 0, 0, 0.0)


def _parts(prompts: Mapping[tuple[bool, int], PromptStats]) -> dict[int, _Parts]:
    found = {}
    for number in {number for _, number in prompts}:
        ref, tied = prompts.get((True, number)), prompts.get((False, number))
        rows = (ref is not None, ref is not None and ref.accurate, tied is not None, tied is not None and tied.accurate)
        pair = (False, False, False, 0.0) if ref is None or tied is None else (True, *_pair(number, ref=ref, tied=tied))
        found[number] = _Parts(*rows, *pair)
    return found


def _pair(number: int, *, ref: PromptStats, tied: PromptStats) -> tuple[bool, bool, float]:
    if tied.spread is None:
        raise ScoringError(f"Ties row 'tied:{number}' has one correct answer, so no spread to compare with; it needs two or more")
    smaller = math.nan if math.isnan(ref.gap) or math.isnan(tied.gap) else min(ref.gap, tied.gap)
    margin = math.tanh(_ratio(smaller, tied.spread) - 1)
    return tied.gap > tied.spread, smaller > tied.spread, 0.0 if math.isnan(margin) else margin


def _added(parts: Iterable[_Parts]) -> _Parts:
    *counts, margins = zip(_NOTHING, *parts, strict=True)
    return _Parts._make([*map(sum, counts), math.fsum(margins)])


def _score(parts: _Parts) -> TiesScore:
    ref_accuracy = parts.refs_accurate / parts.refs if parts.refs else 0.0
    tied_accuracy = parts.tied_accurate / parts.tied if parts.tied else 0.0
    sums = (parts.preferred, parts.preferred_hard, parts.margins)
    means = [value / parts.pairs if parts.pairs else math.nan for value in sums]
    overall = 0.30 * tied_accuracy + 0.30 * ref_accuracy + 0.20 * means[0] + 0.20 * means[1] + 0.01 * means[2]
    return TiesScore(overall, ref_accuracy, tied_accuracy, *means)


def _ratio(numerator: float, denominator: float) -> float:
    """IEEE division: x/0 is infinite with the sign of both, 0/0 is NaN (Python raises instead)."""
    if denominator != 0:
        return numerator / denominator
    if numerator == 0 or math.isnan(numerator):
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)
