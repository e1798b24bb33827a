"""Pairwise accuracy: how often the chosen reply has the higher reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sarm.data import notebook
from sarm.data.preferences import ScoredPreference
from sarm.metrics.credits import Credit, Metric, NanPolicy, ScoringError, counted_nan, credit_metric

if TYPE_CHECKING:
    import pandas


class PairwiseScores(NamedTuple):
    """Pairwise accuracy over all pairs and for each source."""

    overall: Metric
    by_source: dict[str, Metric]
    nan_items: int

    def to_frame(self) -> pandas.DataFrame:
        """A row for all pairs and one for each source: the fields of `Metric`."""
        return notebook.frame(notebook.by_field([self.overall, *self.by_source.values()], Metric._fields))

    def _repr_html_(self) -> str:
        return notebook.table("pairwise accuracy", notebook.by_field([self.overall, *self.by_source.values()], Metric._fields))


def pairwise_scores(items: Sequence[ScoredPreference], *, nan: NanPolicy = "refuse") -> PairwiseScores:
    """Share of pairs with chosen above rejected; an exact tie counts one half and is counted; NaN (`count`) loses.

    Raises ScoringError for no pairs, and for an item that is not one chosen and one rejected.
    """
    if not items:
        raise ScoringError("no pairs; at least one is needed")
    nan_items = counted_nan(items, nan)
    by_source: dict[str, list[Credit]] = {}
    for item in items:
        if len(item.chosen_rewards) != 1 or len(item.rejected_rewards) != 1:
            raise ScoringError(f"item {item.id!r} is not a pair: {len(item.chosen_rewards)} chosen, {len(item.rejected_rewards)} rejected")
        better, worse = item.chosen_rewards[0], item.rejected_rewards[0]
        credit = Credit(0.5, 1) if better == worse else Credit(float(better > worse), 0)
        by_source.setdefault(item.source, []).append(credit)
    overall = credit_metric("pairwise_accuracy", [credit for credits in by_source.values() for credit in credits])
    metrics = {source: credit_metric(source, credits) for source, credits in sorted(by_source.items())}
    return PairwiseScores(overall=overall, by_source=metrics, nan_items=nan_items)
