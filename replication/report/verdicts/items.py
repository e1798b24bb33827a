"""Two files of per-item rewards, item by item: where they agree, where they do not, and the official numbers of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple

from pydantic import Field

from replication.frozen import Frozen
from replication.report.results.reading import ResultsError
from replication.report.results.score_files import ScoredBenchmark, repeated_ids
from replication.report.statistics import rank_correlation
from replication.report.verdicts.item_places import Matched, Place, match_items
from sarm.data.preferences import DataError, ScoredPreference
from sarm.metrics.credits import BenchmarkScores, ScoringError
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores

Outcome = Literal["right", "wrong", "tied"]
TOTAL = "all"
# How many items of one file alone are named.
NAMED = 5


class ItemDifference(Frozen):
    """An item whose outcome is another in the two files. A margin is the worst right reward minus the best wrong one."""

    subset: str
    id: str
    ours: str
    theirs: str
    our_margin: float
    their_margin: float


class SubsetItems(Frozen):
    """The items of a subset that both files have."""

    subset: str
    items: int
    agree: int = Field(description="With the same outcome; RM-Bench: of all nine comparisons.")
    differ: int
    better_here: int = Field(description="Of those that differ, those with more right in our file; a tie counts half.")
    better_there: int
    identical: int = Field(description="Items whose rewards are all equal, to the last digit.")
    correlation: float | None = Field(description="Spearman's, over the rewards of all completions; null where it is not defined.")


class OfficialNumber(Frozen):
    """A metric of the benchmark over all items of each file, in percent; null where a file does not allow it."""

    name: str
    ours: float | None
    theirs: float | None


class ItemsDiff(Frozen):
    """The whole comparison; `differences` are the worst first, `differing` counts them all."""

    experiment: str
    row: str
    benchmark: ScoredBenchmark
    ours: str
    against: str
    subsets: tuple[SubsetItems, ...] = Field(description="By subset, then all of them.")
    numbers: tuple[OfficialNumber, ...]
    differing: int
    differences: tuple[ItemDifference, ...]
    only_ours: tuple[str, ...] = Field(description="Items that the other file lacks.")
    only_theirs: tuple[str, ...] = Field(description="Items that ours lacks.")
    repeated_ids: tuple[int, int] = Field(description="Items of ours and of theirs whose id another of their subset has.")
    by_order: tuple[str, ...] = Field(default=(), description="Subsets in which ids repeat differently, matched by their order alone.")
    unsure: int = Field(default=0, description="Items of ours left out since their id repeats differently in the other file.")


class _Pair(NamedTuple):
    place: Place
    ours: ScoredPreference
    theirs: ScoredPreference


def items_diff(
    ours: Sequence[ScoredPreference],
    theirs: Sequence[ScoredPreference],
    *,
    benchmark: ScoredBenchmark,
    names: Mapping[Literal["experiment", "row", "ours", "against"], str],
) -> ItemsDiff:
    """The comparison of two lists of items, matched as `match_items` says.

    Raises ResultsError (6) where no item is in both, or an item has another number of completions; DataError for rewards without a metric.
    """
    matched = match_items(ours, theirs, benchmark=benchmark)
    pairs = _pairs(matched, names)
    apart = [pair for pair in pairs if outcomes(pair.ours, benchmark) != outcomes(pair.theirs, benchmark)]
    different = sorted(apart, key=_worst(pairs, benchmark))
    subsets = [subset for subset in dict.fromkeys(place.subset for place in matched.our_places) if subset]
    parts = [(subset, [pair for pair in pairs if pair.place.subset == subset]) for subset in subsets]
    return ItemsDiff(
        experiment=names["experiment"],
        row=names["row"],
        ours=names["ours"],
        against=names["against"],
        benchmark=benchmark,
        subsets=tuple(_subset(name, found, benchmark) for name, found in [*parts, (TOTAL, pairs)]),
        numbers=_numbers(_scores(ours, benchmark), _scores(theirs, benchmark)),
        differing=len(different),
        differences=tuple(_difference(pair, benchmark) for pair in different),
        only_ours=tuple(place.whole for place in matched.only_ours),
        only_theirs=tuple(place.whole for place in matched.only_theirs),
        repeated_ids=(repeated_ids(ours), repeated_ids(theirs)),
        by_order=matched.by_order,
        unsure=matched.unsure,
    )  # fmt: skip


def _pairs(matched: Matched, names: Mapping[Literal["experiment", "row", "ours", "against"], str]) -> list[_Pair]:
    """The matched items; ResultsError (6) where there is none, or one has another number of completions."""
    pairs = [_Pair(*one) for one in matched.pairs]
    if not pairs and matched.unsure:
        raise ResultsError(
            f"{names['against']}: every id that {names['ours']} has too stands in the two files a different number of times, so no item is "
            "known to be the same; no comparison"
        )
    if not pairs:
        raise ResultsError(f"{names['against']}: has no item of {names['ours']} by subset and id, so it is of other data; no comparison")
    for pair in pairs:
        _refuse_other_completions(pair, names["against"])
    return pairs


def outcomes(item: ScoredPreference, benchmark: ScoredBenchmark) -> tuple[Outcome, ...]:
    """Of RM-Bench each of the nine comparisons; else one: whether the right completions are above the wrong ones (of Ties all of them)."""
    if benchmark == "rmbench":
        return tuple(_outcome(better - worse) for better, worse in product(item.chosen_rewards, item.rejected_rewards))
    return (_outcome(margin(item, benchmark)),)


def margin(item: ScoredPreference, benchmark: ScoredBenchmark) -> float:
    """How far the right completions are above the wrong ones; outside Ties and RM-Bench the first is right and all others are wrong.

    Source: reroll_and_score_dataset and process_single_model of allenai/reward-bench, compute_accuracy of THU-KEG/RM-Bench.
    """
    if benchmark == "rmbench" or item.subset == "Ties":
        low, high = min(item.chosen_rewards), max(item.rejected_rewards)
    else:
        low, high = item.chosen_rewards[0], max((*item.chosen_rewards[1:], *item.rejected_rewards))
    # Two equal infinities are a tie; their difference would be no number.
    return 0.0 if low == high else low - high


def _outcome(difference: float) -> Outcome:
    return "right" if difference > 0 else "wrong" if difference < 0 else "tied"


def _credit(item: ScoredPreference, benchmark: ScoredBenchmark) -> float:
    found = outcomes(item, benchmark)
    return math.fsum({"right": 1.0, "tied": 0.5, "wrong": 0.0}[one] for one in found) / len(found)


def _refuse_other_completions(pair: _Pair, against: str) -> None:
    mine, others = ((len(one.chosen_rewards), len(one.rejected_rewards)) for one in (pair.ours, pair.theirs))
    if mine != others:
        counts = f"{others[0]} right and {others[1]} wrong completions, ours {mine[0]} and {mine[1]}"
        raise ResultsError(f"{against}: {pair.place.subset} {pair.place.text}: has {counts}: other data under one id; no comparison")


def _worst(pairs: Sequence[_Pair], benchmark: ScoredBenchmark) -> Callable[[_Pair], tuple[float, float]]:
    """Sorts by how far the credits are apart, then by how surely both sides say the opposite, in spreads of each side's rewards."""
    here = _spread([one for pair in pairs for one in _rewards(pair.ours)])
    there = _spread([one for pair in pairs for one in _rewards(pair.theirs)])

    def key(pair: _Pair) -> tuple[float, float]:
        apart = abs(_credit(pair.ours, benchmark) - _credit(pair.theirs, benchmark))
        sure = min(abs(margin(pair.ours, benchmark)) / here, abs(margin(pair.theirs, benchmark)) / there)
        return (-apart, -sure)

    return key


def _spread(rewards: Sequence[float]) -> float:
    finite = [one for one in rewards if math.isfinite(one)]
    return (statistics.pstdev(finite) if finite else 0.0) or 1.0


def _rewards(item: ScoredPreference) -> tuple[float, ...]:
    return item.chosen_rewards + item.rejected_rewards


def _subset(name: str, pairs: Sequence[_Pair], benchmark: ScoredBenchmark) -> SubsetItems:
    agree = sum(outcomes(pair.ours, benchmark) == outcomes(pair.theirs, benchmark) for pair in pairs)
    credits = [(_credit(pair.ours, benchmark), _credit(pair.theirs, benchmark)) for pair in pairs]
    return SubsetItems(
        subset=name, items=len(pairs), agree=agree, differ=len(pairs) - agree,
        better_here=sum(mine > other for mine, other in credits), better_there=sum(mine < other for mine, other in credits),
        identical=sum(_rewards(pair.ours) == _rewards(pair.theirs) for pair in pairs),
        correlation=rank_correlation(
            [one for pair in pairs for one in _rewards(pair.ours)], [one for pair in pairs for one in _rewards(pair.theirs)]
        ),
    )  # fmt: skip


def _difference(pair: _Pair, benchmark: ScoredBenchmark) -> ItemDifference:
    def said(item: ScoredPreference) -> str:
        found = outcomes(item, benchmark)
        return found[0] if len(found) == 1 else f"{found.count('right')} of {len(found)}"

    return ItemDifference(
        subset=pair.place.subset, id=pair.place.text, ours=said(pair.ours), theirs=said(pair.theirs),
        our_margin=margin(pair.ours, benchmark), their_margin=margin(pair.theirs, benchmark),
    )  # fmt: skip


def _scores(items: Sequence[ScoredPreference], benchmark: ScoredBenchmark) -> BenchmarkScores:
    try:
        return rewardbench2_scores(items) if benchmark == "rewardbench2" else rmbench_scores(items)
    except ScoringError as error:
        raise DataError(str(error)) from error


def _numbers(ours: BenchmarkScores, theirs: BenchmarkScores) -> tuple[OfficialNumber, ...]:
    def percent(scores: BenchmarkScores, name: str) -> float | None:
        return 100 * scores.metrics[name].value if name in scores.metrics else None

    names = dict.fromkeys([*ours.metrics, *theirs.metrics])
    return tuple(OfficialNumber(name=name, ours=percent(ours, name), theirs=percent(theirs, name)) for name in names)


def items_exit_code(found: ItemsDiff, fail_on: Sequence[str]) -> int:
    """0, or what `--fail-on` names: 5 where an item is in one file only, 3 where an outcome differs, in this order."""
    if "missing" in fail_on and (found.only_ours or found.only_theirs):
        return 5
    return 3 if "differs" in fail_on and found.differing else 0
