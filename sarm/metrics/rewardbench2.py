"""RewardBench 2: the best of four in five subsets, the Ties score, their mean.

Source: the scoring functions of allenai/reward-bench @ 05a9005.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import (
    BenchmarkScores,
    Credit,
    Metric,
    NanPolicy,
    Score,
    ScoringError,
    add_overall,
    counted_nan,
    credit_metric,
    has_nan,
    mean,
    plain_scores,
)
from sarm.metrics.ties import PromptStats, TiesRow, ties_from_prompts, ties_left_out, ties_prompts

REWARDBENCH2_SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")


def best_of_n_credits(items: Sequence[Sequence[Score]]) -> list[float]:
    """For each item 1/k if its first score is one of the k equal maxima, else 0. Exact equality; NaN anywhere gives 0.

    Raises ScoringError for an item without scores. Source: reroll_and_score_dataset.
    """
    return [_best_of_n(scores).value for scores in items]


def _best_of_n(scores: Sequence[Score]) -> Credit:
    plain = plain_scores(scores)
    if not plain:
        raise ScoringError("an item without scores; each needs at least one completion")
    # The official maximum is NaN as soon as one score is, and nothing equals NaN.
    if any(math.isnan(score) for score in plain) or plain[0] != max(plain):
        return Credit(0.0, 0)
    highest = plain.count(plain[0])
    return Credit(1.0 / highest, int(highest > 1))


def rewardbench2_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> BenchmarkScores:
    """The six subset scores that the items allow, and Overall, their unweighted mean, where all six are there.

    NaN: `refuse` raises ScoringError naming the item; `count` gives credit 0 (Ties: the score is missing), as officially.
    """
    nan_items = counted_nan(items, nan)
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    for subset in REWARDBENCH2_SUBSETS:
        rows = [item for item in items if item.subset == subset]
        if not rows:
            missing[subset] = "no items of this subset"
        elif subset != "Ties":
            metrics[subset] = credit_metric(subset, [_best_of_n(item.chosen_rewards + item.rejected_rewards) for item in rows])
        elif any(has_nan(item) for item in rows):
            missing[subset] = "a reward of this subset is NaN"
        else:
            _add_ties(rows, metrics=metrics, missing=missing)
    add_overall(metrics, missing, parts=REWARDBENCH2_SUBSETS)
    unknown = Counter(item.subset for item in items if item.subset not in REWARDBENCH2_SUBSETS)
    return BenchmarkScores(metrics=metrics, missing=missing, unknown=dict(unknown), nan_items=nan_items)


def _add_ties(rows: Sequence[ScoredPreference], *, metrics: dict[str, Metric], missing: dict[str, str]) -> None:
    prompts = ties_prompts([TiesRow.of(item) for item in rows])
    value = ties_from_prompts(prompts).overall
    if math.isnan(value):
        missing["Ties"] = "no prompt has both a ref and a tied row"
        return
    equal = sum(stats.gap == 0 for stats in prompts.values())
    metrics["Ties"] = Metric("Ties", value, len(rows), None, _ties_standard_error(prompts), equal)


def _ties_standard_error(prompts: Mapping[tuple[bool, int], PromptStats]) -> float | None:
    """Jackknife over prompts N: the ref and the tied row of a prompt are left out together. None where a part is undefined."""
    left_out = ties_left_out(prompts)
    if len(left_out) < 2 or any(math.isnan(value) for value in left_out):
        return None
    centre = mean(left_out)
    return math.sqrt((len(left_out) - 1) / len(left_out) * math.fsum((value - centre) ** 2 for value in left_out))
