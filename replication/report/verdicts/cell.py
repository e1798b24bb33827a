"""A verdict for each cell, after the rule of `tables/published/margins.toml` and two regimes that are never mixed.

Evaluation: the weights are claimed to be the published ones, so only numerics may differ; counts are compared, no sampling theory.
Retrained: our seeds against one published draw; equivalence and difference are both tested, and neither is the default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from pydantic import Field

from replication.frozen import Frozen
from replication.report.cells import Verdict
from replication.report.counts import Grain, Interval, Rounding, achievable_counts, interval_of, nearest_difference
from replication.report.statistics import binomial_error, compare_with_one_draw, seeds_that_decide
from replication.report.verdicts.rules import VerdictRules

Regime = Literal["retrained", "evaluation"]
WITHOUT_COUNTS = ("Overall", "Ties")


class VerdictError(ValueError):
    """Values that cannot be judged at all: no verdict is given."""

    exit_code = 6


class Judgement(Frozen):
    """A verdict with its numbers; points, except p values."""

    verdict: Verdict
    reason: str
    difference: float | None = Field(default=None, description="Ours minus published.")
    low: float | None = Field(default=None, description="Lower end of the 95 % interval of the difference.")
    high: float | None = None
    items: float | None = Field(default=None, description="Evaluation regime: the smallest difference in items that the digits allow.")
    p_equivalent: float | None = None
    p_differs: float | None = None
    seeds: int = Field(default=0, description="Retrained regime: how many of ours.")
    seeds_needed: int | None = None


def verdict(
    *,
    regime: Regime,
    column: str,
    published: str | None,
    value: float | None,
    n: int,
    rules: VerdictRules,
    correct: float | None = None,
    per_seed: Sequence[float] = (),
    standard_error: float | None = None,
    rounding: Rounding = "half-even",
    grain: Grain = "halves",
    subsets: Mapping[str, Verdict] | None = None,
    why_not_comparable: str = "",
    defect: str = "",
) -> Judgement:
    """The verdict of one cell.

    `value`, `per_seed` and `standard_error` are in percent, `n` and `correct` in items; `subsets` are the verdicts of the row's other
    columns, which decide Overall in the evaluation regime; `defect` is what the audit says against the published cell.
    Raises VerdictError for values that are no percentages or counts, PublishedError where no margin is fixed.
    """
    if published is None:
        return Judgement(verdict="NOT COMPARABLE", reason="the reference has no such cell")
    if value is None:
        return Judgement(verdict="MISSING", reason="not measured")
    _check(value, per_seed, n=n, correct=correct)
    interval = interval_of(published, rounding=rounding)
    difference = value - float((interval.low + interval.high) / 2)
    if why_not_comparable or defect:
        barred: Verdict = "NOT COMPARABLE" if why_not_comparable else "DEFECTIVE"
        return Judgement(verdict=barred, reason=why_not_comparable or defect, difference=difference)
    if regime == "evaluation":
        return evaluation_verdict(
            column=column, interval=interval, value=value, n=n, correct=correct, grain=grain, subsets=subsets or {}, rules=rules
        )
    error = binomial_error(value, n) if standard_error is None else standard_error
    return retrained_verdict(column=column, interval=interval, per_seed=per_seed or (value,), n=n, error=error, rules=rules)


def _check(value: float, per_seed: Sequence[float], *, n: int, correct: float | None) -> None:
    for one in (value, *per_seed):
        # The Ties score can leave 0..100 by one point: its margin term has weight 0.01 and both signs.
        if not math.isfinite(one) or not -1.01 <= one <= 101.01:
            raise VerdictError(f"{one!r} is no percentage")
    if n < 1:
        raise VerdictError(f"{n} items are too few for a verdict")
    if correct is not None and not 0 <= correct <= n:
        raise VerdictError(f"{correct:g} credits of {n} items are no count")


def evaluation_verdict(
    *,
    column: str,
    interval: Interval,
    value: float,
    n: int,
    correct: float | None,
    grain: Grain,
    subsets: Mapping[str, Verdict],
    rules: VerdictRules,
) -> Judgement:
    """Same weights claimed: counts within the noise budget match, Ties within its points, Overall if all subsets do."""
    difference = value - float((interval.low + interval.high) / 2)
    if column == "Overall":
        return _overall(subsets, difference=difference)
    ours = interval_of(_digits(value), rounding="half-even")
    if column in WITHOUT_COUNTS:
        apart = float(interval.distance(ours))
        reason = f"{apart:.2f} points apart, budget {rules.ties_budget:g}"
        return Judgement(verdict="MATCH" if apart <= rules.ties_budget else "DIFFERS", reason=reason, difference=difference)
    theirs = achievable_counts(interval, n=n, grain=grain)
    if not theirs:
        return Judgement(verdict="DEFECTIVE", reason=f"the published value is no count of {n} in {grain}", difference=difference)
    counts = (Fraction(correct).limit_denominator(12),) if correct is not None else achievable_counts(ours, n=n, grain="twelfths")
    if not counts:
        raise VerdictError(f"{column}: our value {value:.10g} is no count of {n} items")
    items = float(nearest_difference(counts, theirs))
    reason = f"{items:g} items apart, budget {rules.noise_budget_items:g}"
    within = items <= rules.noise_budget_items
    return Judgement(verdict="MATCH" if within else "DIFFERS", reason=reason, difference=difference, items=items)


def _digits(value: float) -> str:
    """A float carries no digits, so 92.0 must not pass for `92`, which would stand for everything from 91.5 to 92.5."""
    short = f"{value:.10g}"
    return short if len(short.partition(".")[2]) >= 2 else f"{value:.2f}"


def _overall(subsets: Mapping[str, Verdict], *, difference: float) -> Judgement:
    judged = {column: one for column, one in subsets.items() if one != "DEFECTIVE"}
    off = [column for column, one in judged.items() if one == "DIFFERS"]
    if off:
        return Judgement(verdict="DIFFERS", reason=f"over budget in {', '.join(off)}", difference=difference)
    if judged and all(one == "MATCH" for one in judged.values()):
        return Judgement(verdict="MATCH", reason="all subsets match", difference=difference)
    lacking = ", ".join(column for column, one in judged.items() if one != "MATCH") or "every subset"
    return Judgement(verdict="INCONCLUSIVE", reason=f"Overall follows its subsets; no match known for {lacking}", difference=difference)


def retrained_verdict(
    *, column: str, interval: Interval, per_seed: Sequence[float], n: int, error: float, rules: VerdictRules
) -> Judgement:
    """New seeds against one published draw; `error` is the standard error over items in points, used only before there are two seeds."""
    margin = rules.margin_of(column)
    low, high = float(interval.low), float(interval.high)
    if len(per_seed) < 2:
        return _one_seed(per_seed[0], low=low, high=high, error=error, margin=margin, rules=rules)
    resolution = 100 / n / math.sqrt(12)
    found = compare_with_one_draw(per_seed, low=low, high=high, margin=margin, alpha=rules.alpha, least_deviation=resolution)
    deviation = found.standard_error / math.sqrt(1 + 1 / len(per_seed))
    needed = seeds_that_decide(
        difference=found.difference, deviation=deviation, margin=margin, alpha=rules.alpha, least=rules.prediction_seeds,
        digits=(high - low) / 2,
    )  # fmt: skip
    numbers = f"difference {found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}], margin {margin:g}, {len(per_seed)} seeds"
    chosen: Verdict = "INCONCLUSIVE"
    if found.p_differs <= rules.alpha:
        chosen = "DIFFERS"
    elif found.p_equivalent <= rules.alpha:
        chosen = "EQUIVALENT"
    elif len(per_seed) >= rules.prediction_seeds and found.low <= 0 <= found.high:
        chosen = "CONSISTENT"
    reason = numbers if chosen != "INCONCLUSIVE" else f"{numbers}; {decided_by(needed, margin=margin, deviation=deviation)}"
    return Judgement(
        verdict=chosen, reason=reason, difference=found.difference, low=found.low, high=found.high,
        p_equivalent=found.p_equivalent, p_differs=found.p_differs, seeds_needed=needed, seeds=len(per_seed),
    )  # fmt: skip


def _one_seed(value: float, *, low: float, high: float, error: float, margin: float, rules: VerdictRules) -> Judgement:
    deviation, middle = math.sqrt(rules.seed_dispersion) * error, (low + high) / 2
    needed = seeds_that_decide(
        difference=value - middle, deviation=deviation, margin=margin, alpha=rules.alpha, least=rules.prediction_seeds,
        digits=(high - low) / 2,
    )  # fmt: skip
    reason = (
        f"difference {value - middle:+.2f}, margin {margin:g}, one seed; a prediction interval needs {rules.prediction_seeds} seeds; "
        f"with a seed deviation of {deviation:.2f} (assumed) {decided_by(needed, margin=margin, deviation=deviation)}"
    )
    return Judgement(verdict="INCONCLUSIVE", reason=reason, difference=value - middle, seeds_needed=needed, seeds=1)


def decided_by(needed: int | None, *, margin: float, deviation: float) -> str:
    """What would decide an open cell, in words."""
    if needed is not None:
        return f"{needed} seeds would decide if the difference stays"
    doubt = f"one published draw leaves {1.96 * deviation:.2f} points of doubt, margin {margin:g}"
    return f"no number of seeds would decide at this difference: {doubt}"
