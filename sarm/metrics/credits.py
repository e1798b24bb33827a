"""What all metrics are made of: credits of items, their mean and its standard error, NaN by a stated policy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from sarm.data import notebook
from sarm.data.preferences import ScoredPreference
from sarm.job import UsageProblem

if TYPE_CHECKING:
    import pandas

OVERALL = "Overall"

Score = float | Sequence[float]
NanPolicy = Literal["refuse", "count"]


class ScoringError(UsageProblem, ValueError):
    """Rewards from which the metric is not defined. The message names the item and what is wrong."""


class Metric(NamedTuple):
    """One number of a benchmark.

    `value` and `standard_error` are fractions; `n` items lie behind it; `correct` is the sum of credits where the metric is
    a mean of credits; `ties` counts exact ties that touched a credit. `standard_error` is None below two items.
    """

    name: str
    value: float
    n: int
    correct: float | None
    standard_error: float | None
    ties: int

    def to_frame(self) -> pandas.DataFrame:
        """One row."""
        return notebook.frame(notebook.by_field([self], self._fields))

    def _repr_html_(self) -> str:
        return notebook.table(self.name, notebook.by_field([self], self._fields))


@dataclass(frozen=True)
class BenchmarkScores:
    """Metrics by name in printing order; what is missing and why; labels that no metric covers; items with NaN."""

    metrics: Mapping[str, Metric]
    missing: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    nan_items: int = 0

    def to_frame(self) -> pandas.DataFrame:
        """A row for each metric: `name`, `value` and `standard_error` as fractions of 1, `n`, `correct`, `ties`."""
        return notebook.frame(notebook.by_field(list(self.metrics.values()), Metric._fields))

    def _repr_html_(self) -> str:
        absent = "; ".join(f"no {name}: {reason}" for name, reason in self.missing.items())
        return notebook.table("benchmark scores", notebook.by_field(list(self.metrics.values()), Metric._fields), note=absent)

    def require(self, name: str) -> Metric:
        """The metric, or ScoringError with the reason why it is missing."""
        if name not in self.metrics:
            raise ScoringError(f"{name}: {self.missing.get(name, 'no such metric')}; score all parts of the benchmark")
        return self.metrics[name]


class Credit(NamedTuple):
    """What one item gives: 0 to 1, and whether (or how often) an exact tie touched it."""

    value: float
    tied: int


def plain_scores(scores: Sequence[Score]) -> list[float]:
    """Scores as floats; a one-element list (a row of an (n, 1) logit array) stands for its element."""
    plain = []
    for position, score in enumerate(scores):
        # All but a few are; telling what else a score may be takes five times as long.
        if type(score) is float:
            plain.append(score)
            continue
        nested = isinstance(score, Sequence) and not isinstance(score, str) and len(score) == 1
        value = score[0] if nested and isinstance(score, Sequence) else score
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ScoringError(f"score {position} is {score!r}; a reward is one number")
        plain.append(float(value))
    return plain


def split_scores(scores: Sequence[Score], total_completions: Sequence[int]) -> list[list[Score]]:
    """A flat list of scores cut up into items. Raises ScoringError where the lengths do not add up."""
    if sum(total_completions) != len(scores) or any(count < 1 for count in total_completions):
        raise ScoringError(f"{len(scores)} scores for completions counted as {sum(total_completions)}; score every completion once")
    items, start = [], 0
    for count in total_completions:
        items.append(list(scores[start : start + count]))
        start += count
    return items


def count_nan(items: Sequence[ScoredPreference]) -> int:
    """Items with at least one NaN reward."""
    return sum(has_nan(item) for item in items)


def has_nan(item: ScoredPreference) -> bool:
    return any(math.isnan(reward) for reward in item.chosen_rewards + item.rejected_rewards)


def counted_nan(items: Sequence[ScoredPreference], nan: NanPolicy) -> int:
    if nan == "refuse":
        for item in items:
            if has_nan(item):
                raise ScoringError(f"item {item.id!r} of {item.subset or item.source or 'the file'} has a NaN reward; score it again")
    return count_nan(items)


def credit_metric(name: str, credits: Sequence[Credit]) -> Metric:
    values = [credit.value for credit in credits]
    ties = sum(credit.tied for credit in credits)
    return Metric(name, mean(values), len(values), math.fsum(values), standard_error(values), ties)


def add_overall(metrics: dict[str, Metric], missing: dict[str, str], *, parts: Sequence[str], name: str = OVERALL) -> None:
    """The unweighted mean of parts with its standard error, or the reason why there is none."""
    absent = [part for part in parts if part not in metrics]
    if absent:
        missing[name] = f"a mean over {len(parts)} parts; missing: {', '.join(absent)}"
        return
    chosen = [metrics[part] for part in parts]
    errors = [part.standard_error for part in chosen if part.standard_error is not None]
    error = math.sqrt(math.fsum(value**2 for value in errors)) / len(parts) if len(errors) == len(parts) else None
    metrics[name] = Metric(
        name, mean(part.value for part in chosen), sum(part.n for part in chosen), None, error, sum(part.ties for part in chosen)
    )


def mean(values: Iterable[float], *, empty: float = math.nan) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else empty


def standard_error(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the root of n."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


