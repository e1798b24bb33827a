"""What an edit of one latent does to a benchmark's accuracies: exact arithmetic on rewards, since a reward is linear in latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import OVERALL, BenchmarkScores
from sarm.metrics.pairs import pairwise_scores
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits, rewardbench2_scores
from sarm.metrics.rmbench import LEVELS, RMBENCH_DOMAINS, rmbench_scores, style_credits
from sarm.metrics.ties import TiesRow, ties_from_prompts, ties_prompts

Benchmark = Literal["rewardbench2", "rmbench", "evaluation"]
TIES = "Ties"
Key = tuple[bool, int]


def benchmark_scores(benchmark: Benchmark, items: Sequence[ScoredPreference]) -> BenchmarkScores:
    """The benchmark's own metrics; of held-out pairs the accuracy as Overall, each source beside it. Raises ScoringError."""
    if benchmark == "rewardbench2":
        return rewardbench2_scores(items)
    if benchmark == "rmbench":
        return rmbench_scores(items)
    found = pairwise_scores(items)
    return BenchmarkScores(metrics={**{name: one for name, one in found.by_source.items() if name}, OVERALL: found.overall})


class EditedAccuracies:
    """A benchmark's accuracies, and those after the rewards of some items have changed: only these are counted anew."""

    def __init__(self, benchmark: Benchmark, items: Sequence[ScoredPreference]) -> None:
        """Raises ScoringError for items of which the benchmark's metrics are not defined."""
        found = benchmark_scores(benchmark, items)
        self._benchmark, self._items = benchmark, items
        self.missing = dict(found.missing)
        self.columns = tuple(found.metrics)
        self.base = tuple(found.metrics[name].value for name in self.columns)
        self._counts = {name: found.metrics[name].n for name in self.columns}
        self._credits = [self._credits_of(item, item.chosen_rewards, item.rejected_rewards) for item in items]
        self._rows_of: dict[Key, list[int]] = {}
        if TIES in self.columns and benchmark == "rewardbench2":
            for index, item in enumerate(items):
                if item.subset == TIES:
                    self._rows_of.setdefault(_key(item.id), []).append(index)
            rows = [self._ties_row(index, {}) for index, item in enumerate(items) if item.subset == TIES]
            self._prompts = ties_prompts(rows)

    def after(self, changed: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> tuple[float, ...]:
        """The accuracies, in the order of `columns`, with other (chosen, rejected) rewards of some items, by their place."""
        values = dict(zip(self.columns, self.base, strict=True))
        for index, (chosen, rejected) in changed.items():
            before, now = self._credits[index], self._credits_of(self._items[index], chosen, rejected)
            for name, credit in now.items():
                values[name] += (credit - before[name]) / self._counts[name]
        if self._rows_of:
            values[TIES] = self._ties(changed)
        for name, parts in self._means().items():
            values[name] = math.fsum(values[part] for part in parts) / len(parts)
        return tuple(values[name] for name in self.columns)

    def _credits_of(self, item: ScoredPreference, chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, float]:
        """What an item gives to each column that is a mean of credits."""
        if self._benchmark == "rewardbench2":
            known = item.subset in self.columns and item.subset != TIES
            return {item.subset: best_of_n_credits([[*chosen, *rejected]])[0]} if known else {}
        if self._benchmark == "evaluation":
            pairs = [0.5 if better == worse else float(better > worse) for better, worse in product(chosen, rejected)]
            return {name: math.fsum(pairs) / len(pairs) for name in dict.fromkeys((item.source, OVERALL)) if name in self.columns}
        wins = style_credits(chosen, rejected).wins
        domain = next((name for name in RMBENCH_DOMAINS if item.subset.startswith(name)), "")
        found = {f"{domain}/{level}" if domain else level: wins[place] for place, level in enumerate(LEVELS)}
        found |= {domain: math.fsum(wins) / len(wins)} if domain else {}
        return {name: value for name, value in found.items() if name in self.columns}

    def _means(self) -> dict[str, tuple[str, ...]]:
        """The columns that are unweighted means of others."""
        if self._benchmark == "evaluation" or OVERALL not in self.columns:
            return {}
        if self._benchmark == "rewardbench2":
            return {OVERALL: REWARDBENCH2_SUBSETS}
        levels = {level: tuple(f"{domain}/{level}" for domain in RMBENCH_DOMAINS) for level in LEVELS}
        return {**levels, OVERALL: RMBENCH_DOMAINS}

    def _ties(self, changed: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> float:
        keys = {_key(self._items[index].id) for index in changed if self._items[index].subset == TIES}
        if not keys:
            return self.base[self.columns.index(TIES)]
        rows = [self._ties_row(index, changed) for key in keys for index in self._rows_of[key]]
        return ties_from_prompts({**self._prompts, **ties_prompts(rows)}).overall

    def _ties_row(self, index: int, changed: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> TiesRow:
        item = self._items[index]
        chosen, rejected = changed.get(index, (item.chosen_rewards, item.rejected_rewards))
        return TiesRow(item.id, len(chosen), [*chosen, *rejected])


def _key(name: str) -> Key:
    kind, _, number = name.partition(":")
    return kind == "ref", int(number)
