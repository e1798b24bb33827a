"""Rewards in, metrics out: best of n, the Ties score, the RM-Bench matrix, pairs. Plain Python floats, fractions of 1.

Source: the scoring functions of allenai/reward-bench @ 05a9005 and THU-KEG/RM-Bench @ 73c52d7.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, NamedTuple

from sarm.data.preferences import ScoredPreference

REWARDBENCH2_SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
RMBENCH_DOMAINS = ("chat", "math", "code", "safety")
STYLES = 3
LEVELS = ("hard", "normal", "easy")
OVERALL = "Overall"

Score = float | Sequence[float]
NanPolicy = Literal["refuse", "count"]


class ScoringError(ValueError):
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


@dataclass(frozen=True)
class BenchmarkScores:
    """Metrics by name in printing order; what is missing and why; labels that no metric covers; items with NaN."""

    metrics: Mapping[str, Metric]
    missing: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    nan_items: int = 0

    def require(self, name: str) -> Metric:
        """The metric, or ScoringError with the reason why it is missing."""
        if name not in self.metrics:
            raise ScoringError(f"{name}: {self.missing.get(name, 'no such metric')}; score all parts of the benchmark")
        return self.metrics[name]


class PairwiseScores(NamedTuple):
    """Pairwise accuracy over all pairs and for each source."""

    overall: Metric
    by_source: dict[str, Metric]
    nan_items: int


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


class StyleCredits(NamedTuple):
    """Of one item's 3x3 comparisons (rows chosen, columns rejected): shares won above, on, below the diagonal; counts of equal ones."""

    wins: tuple[float, ...]
    ties: tuple[int, ...]


class _Credit(NamedTuple):
    value: float
    tied: int


def plain_scores(scores: Sequence[Score]) -> list[float]:
    """Scores as floats; a one-element list (a row of an (n, 1) logit array) stands for its element."""
    plain = []
    for position, score in enumerate(scores):
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


def best_of_n_credits(items: Sequence[Sequence[Score]]) -> list[float]:
    """For each item 1/k if its first score is one of the k equal maxima, else 0. Exact equality; NaN anywhere gives 0.

    Raises ScoringError for an item without scores. Source: reroll_and_score_dataset.
    """
    return [_best_of_n(scores).value for scores in items]


def _best_of_n(scores: Sequence[Score]) -> _Credit:
    plain = plain_scores(scores)
    if not plain:
        raise ScoringError("an item without scores; each needs at least one completion")
    # The official maximum is NaN as soon as one score is, and nothing equals NaN.
    if any(math.isnan(score) for score in plain) or plain[0] != max(plain):
        return _Credit(0.0, 0)
    highest = plain.count(plain[0])
    return _Credit(1.0 / highest, int(highest > 1))


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
    return _ties_from_prompts(_ties_prompts(rows, nan))


def _sides(row: TiesRow, nan: str) -> tuple[list[float], list[float]]:
    scores = plain_scores(row.scores)
    if row.num_correct < 0 or (nan == "refuse" and any(math.isnan(score) for score in scores)):
        raise ScoringError(f"Ties row {row.id!r} has a NaN score or num_correct < 0; score it again")
    return scores[: row.num_correct], scores[row.num_correct :]


def _ties_prompts(rows: Sequence[TiesRow], nan: str) -> dict[tuple[bool, int], PromptStats]:
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


def _ties_from_prompts(prompts: Mapping[tuple[bool, int], PromptStats]) -> TiesScore:
    ref_accuracy = _mean((stats.accurate for (is_ref, _), stats in prompts.items() if is_ref), empty=0.0)
    tied_accuracy = _mean((stats.accurate for (is_ref, _), stats in prompts.items() if not is_ref), empty=0.0)
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
    means = [_mean(values) for values in (preferred, preferred_hard, margins)]
    overall = 0.30 * tied_accuracy + 0.30 * ref_accuracy + 0.20 * means[0] + 0.20 * means[1] + 0.01 * means[2]
    return TiesScore(overall, ref_accuracy, tied_accuracy, *means)


def style_credits(chosen: Sequence[Score], rejected: Sequence[Score]) -> StyleCredits:
    """Wins of three chosen against three rejected, each in the order concise, detailed plain, detailed Markdown.

    A win is strict; ties and NaN lose. Raises ScoringError unless there are 3 + 3. Source: compute_accuracy.
    """
    better, worse = plain_scores(chosen), plain_scores(rejected)
    if len(better) != STYLES or len(worse) != STYLES:
        raise ScoringError(f"an RM-Bench item has {len(better)} chosen and {len(worse)} rejected scores; it needs 3 and 3")
    wins, ties = [0, 0, 0], [0, 0, 0]
    for row, column in product(range(STYLES), repeat=2):
        level = 0 if row < column else 1 if row == column else 2
        wins[level] += better[row] > worse[column]
        ties[level] += better[row] == worse[column]
    return StyleCredits(wins=tuple(count / STYLES for count in wins), ties=tuple(ties))


def rewardbench2_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> BenchmarkScores:
    """The six subset scores that the items allow, and Overall, their unweighted mean, where all six are there.

    NaN: `refuse` raises ScoringError naming the item; `count` gives credit 0 (Ties: the score is missing), as officially.
    """
    nan_items = _nan_items(items, nan)
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    for subset in REWARDBENCH2_SUBSETS:
        rows = [item for item in items if item.subset == subset]
        if not rows:
            missing[subset] = "no items of this subset"
        elif subset != "Ties":
            metrics[subset] = _credit_metric(subset, [_best_of_n(item.chosen_rewards + item.rejected_rewards) for item in rows])
        elif any(_has_nan(item) for item in rows):
            missing[subset] = "a reward of this subset is NaN"
        else:
            _add_ties(rows, metrics=metrics, missing=missing)
    _add_overall(metrics, missing, parts=REWARDBENCH2_SUBSETS)
    unknown = Counter(item.subset for item in items if item.subset not in REWARDBENCH2_SUBSETS)
    return BenchmarkScores(metrics=metrics, missing=missing, unknown=dict(unknown), nan_items=nan_items)


def rmbench_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> BenchmarkScores:
    """Domains (`chat`, `chat/hard`, ...), then hard, normal, easy and Overall where all four domains are there.

    Items without any domain give hard, normal and easy over all of them, as the official function does.
    Raises ScoringError for an item that is not 3 + 3, or has no domain while others have one.
    """
    nan_items = _nan_items(items, nan)
    labelled = [(item.subset, style_credits(item.chosen_rewards, item.rejected_rewards)) for item in items]
    without = sum(not item.subset for item in items)
    if items and without == len(items):
        metrics = _style_metrics("", [credits for _, credits in labelled])
        return BenchmarkScores(metrics=metrics, missing={OVERALL: "the items name no domain"}, nan_items=nan_items)
    if without:
        raise ScoringError(f"{without} of {len(items)} RM-Bench items name no domain; give each its own or none any")
    metrics, missing = {}, dict[str, str]()
    for domain in RMBENCH_DOMAINS:
        of_domain = [credits for label, credits in labelled if label.startswith(domain)]
        if of_domain:
            metrics |= _style_metrics(domain, of_domain)
        else:
            missing[domain] = "no items of this domain"
    for level in LEVELS:
        _add_overall(metrics, missing, parts=[f"{domain}/{level}" for domain in RMBENCH_DOMAINS], name=level)
    _add_overall(metrics, missing, parts=RMBENCH_DOMAINS)
    unknown = Counter(label for label, _ in labelled if not label.startswith(RMBENCH_DOMAINS))
    return BenchmarkScores(metrics=metrics, missing=missing, unknown=dict(unknown), nan_items=nan_items)


def pairwise_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> PairwiseScores:
    """Share of pairs with chosen above rejected; an exact tie counts one half and is counted; NaN (`count`) loses.

    Raises ScoringError for no pairs, and for an item that is not one chosen and one rejected.
    """
    if not items:
        raise ScoringError("no pairs; at least one is needed")
    nan_items = _nan_items(items, nan)
    by_source: dict[str, list[_Credit]] = {}
    for item in items:
        if len(item.chosen_rewards) != 1 or len(item.rejected_rewards) != 1:
            raise ScoringError(f"item {item.id!r} is not a pair: {len(item.chosen_rewards)} chosen, {len(item.rejected_rewards)} rejected")
        better, worse = item.chosen_rewards[0], item.rejected_rewards[0]
        credit = _Credit(0.5, 1) if better == worse else _Credit(float(better > worse), 0)
        by_source.setdefault(item.source, []).append(credit)
    overall = _credit_metric("pairwise_accuracy", [credit for credits in by_source.values() for credit in credits])
    metrics = {source: _credit_metric(source, credits) for source, credits in sorted(by_source.items())}
    return PairwiseScores(overall=overall, by_source=metrics, nan_items=nan_items)


def count_nan(items: Sequence[ScoredPreference]) -> int:
    """Items with at least one NaN reward."""
    return sum(_has_nan(item) for item in items)


def _has_nan(item: ScoredPreference) -> bool:
    return any(math.isnan(reward) for reward in item.chosen_rewards + item.rejected_rewards)


def _nan_items(items: Sequence[ScoredPreference], nan: NanPolicy) -> int:
    if nan == "refuse":
        for item in items:
            if _has_nan(item):
                raise ScoringError(f"item {item.id!r} of {item.subset or item.source or 'the file'} has a NaN reward; score it again")
    return count_nan(items)


def _add_ties(rows: Sequence[ScoredPreference], *, metrics: dict[str, Metric], missing: dict[str, str]) -> None:
    ties = [TiesRow(item.id, len(item.chosen_rewards), item.chosen_rewards + item.rejected_rewards) for item in rows]
    prompts = _ties_prompts(ties, "refuse")
    value = _ties_from_prompts(prompts).overall
    if math.isnan(value):
        missing["Ties"] = "no prompt has both a ref and a tied row"
        return
    equal = sum(stats.gap == 0 for stats in prompts.values())
    metrics["Ties"] = Metric("Ties", value, len(rows), None, _ties_standard_error(prompts), equal)


def _ties_standard_error(prompts: Mapping[tuple[bool, int], PromptStats]) -> float | None:
    """Jackknife over prompts N: the ref and the tied row of a prompt are left out together. None where a part is undefined."""
    numbers = {number for _, number in prompts}
    left_out = [
        _ties_from_prompts({key: stats for key, stats in prompts.items() if key[1] != number}).overall for number in sorted(numbers)
    ]
    if len(left_out) < 2 or any(math.isnan(value) for value in left_out):
        return None
    centre = _mean(left_out)
    return math.sqrt((len(left_out) - 1) / len(left_out) * math.fsum((value - centre) ** 2 for value in left_out))


def _style_metrics(domain: str, credits: Sequence[StyleCredits]) -> dict[str, Metric]:
    columns = {
        f"{domain}/{level}" if domain else level: [_Credit(item.wins[place], item.ties[place]) for item in credits]
        for place, level in enumerate(LEVELS)
    }
    whole = {domain: [_Credit(_mean(item.wins), sum(item.ties)) for item in credits]} if domain else {}
    return {name: _credit_metric(name, column) for name, column in (whole | columns).items()}


def _credit_metric(name: str, credits: Sequence[_Credit]) -> Metric:
    values = [credit.value for credit in credits]
    ties = sum(credit.tied for credit in credits)
    return Metric(name, _mean(values), len(values), math.fsum(values), _standard_error(values), ties)


def _add_overall(metrics: dict[str, Metric], missing: dict[str, str], *, parts: Sequence[str], name: str = OVERALL) -> None:
    """The unweighted mean of parts with its standard error, or the reason why there is none."""
    absent = [part for part in parts if part not in metrics]
    if absent:
        missing[name] = f"a mean over {len(parts)} parts; missing: {', '.join(absent)}"
        return
    chosen = [metrics[part] for part in parts]
    errors = [part.standard_error for part in chosen if part.standard_error is not None]
    error = math.sqrt(math.fsum(value**2 for value in errors)) / len(parts) if len(errors) == len(parts) else None
    metrics[name] = Metric(
        name, _mean(part.value for part in chosen), sum(part.n for part in chosen), None, error, sum(part.ties for part in chosen)
    )


def _mean(values: Iterable[float], *, empty: float = math.nan) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else empty


def _standard_error(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the root of n."""
    if len(values) < 2:
        return None
    centre = _mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values))


def _ratio(numerator: float, denominator: float) -> float:
    """IEEE division: x/0 is infinite with the sign of both, 0/0 is NaN (Python raises instead)."""
    if denominator != 0:
        return numerator / denominator
    if numerator == 0 or math.isnan(numerator):
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)
