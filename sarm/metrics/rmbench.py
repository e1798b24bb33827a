"""RM-Bench: every chosen style against every rejected one, below, on and above the diagonal.

Source: THU-KEG/RM-Bench @ 73c52d7.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import (
    OVERALL,
    BenchmarkScores,
    Credit,
    Metric,
    NanPolicy,
    Score,
    ScoringError,
    add_overall,
    counted_nan,
    credit_metric,
    mean,
    plain_scores,
)

RMBENCH_DOMAINS = ("chat", "math", "code", "safety")
STYLES = 3
LEVELS = ("hard", "normal", "easy")


class StyleCredits(NamedTuple):
    """Of one item's 3x3 comparisons (rows chosen, columns rejected): shares won above, on, below the diagonal; counts of equal ones."""

    wins: tuple[float, ...]
    ties: tuple[int, ...]


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


def rmbench_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> BenchmarkScores:
    """Domains (`chat`, `chat/hard`, ...), then hard, normal, easy and Overall where all four domains are there.

    Items without any domain give hard, normal and easy over all of them, as the official function does.
    Raises ScoringError for an item that is not 3 + 3, or has no domain while others have one.
    """
    nan_items = counted_nan(items, nan)
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
        add_overall(metrics, missing, parts=[f"{domain}/{level}" for domain in RMBENCH_DOMAINS], name=level)
    add_overall(metrics, missing, parts=RMBENCH_DOMAINS)
    unknown = Counter(label for label, _ in labelled if not label.startswith(RMBENCH_DOMAINS))
    return BenchmarkScores(metrics=metrics, missing=missing, unknown=dict(unknown), nan_items=nan_items)


def _style_metrics(domain: str, credits: Sequence[StyleCredits]) -> dict[str, Metric]:
    columns = {
        f"{domain}/{level}" if domain else level: [Credit(item.wins[place], item.ties[place]) for item in credits]
        for place, level in enumerate(LEVELS)
    }
    whole = {domain: [Credit(mean(item.wins), sum(item.ties)) for item in credits]} if domain else {}
    return {name: credit_metric(name, column) for name, column in (whole | columns).items()}
