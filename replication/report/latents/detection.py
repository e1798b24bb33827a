"""How much better explanations tell a latent's contexts from others than those of a frozen random encoder do (claim C7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

from replication.report.statistics import PairedDifference, t_quantile, tail

CONTROL = "control-"


class Accuracies(NamedTuple):
    """Balanced detection accuracy (0 to 1) of each latent that was explained: ours, and those of the frozen random encoder."""

    ours: tuple[float, ...]
    control: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Mean of ours minus mean of the control's."""
        return sum(self.ours) / len(self.ours) - sum(self.control) / len(self.control)


class Difference(NamedTuple):
    """Ours minus the control, points of balanced accuracy, with its 95 % interval over seeds and latents, and a one-sided p value."""

    estimate: float
    low: float
    high: float
    p_value: float
    seeds: int

    @property
    def bounded(self) -> bool:
        """Whether its interval has ends."""
        return math.isfinite(self.high)


def accuracies(rows: Sequence[Mapping[str, Any]]) -> Accuracies | None:
    """The two arms of one `explanations.jsonl`, without latents that were listed by hand; None where an arm has no detection score."""
    scored = [row for row in rows if row["status"] == "explained" and row["detection"] and row["group"] != "listed"]
    arms: tuple[list[float], list[float]] = ([], [])
    for row in scored:
        arms[str(row["group"]).startswith(CONTROL)].append(float(row["detection"]["balanced_accuracy"]))
    return Accuracies(tuple(arms[0]), tuple(arms[1])) if arms[0] and arms[1] else None


def difference(per_seed: Sequence[Accuracies], *, beyond: float = 0.0) -> Difference:
    """The mean over seeds, each with latents of its own: the interval of t over seeds, or that over latents where it is wider.

    The variance between seeds holds that of their latents too, but a few seeds may happen to lie closer than their latents allow. Of one
    seed the interval is that of its latents; where an arm has a single one nothing is known of it, and the interval has no ends
    (infinite). The p value is that of a difference above `beyond` (points), the larger of both. Raises ValueError for no seed.
    """
    if not per_seed:
        raise ValueError("no seed has detection scores of both encoders")
    seeds, means = len(per_seed), [100 * one.difference for one in per_seed]
    errors = [(math.sqrt(math.fsum(_of_latents(one) for one in per_seed)) / seeds, math.inf)]
    if seeds > 1:
        # Without a second latent what several seeds say is all there is.
        errors = [one for one in errors if math.isfinite(one[0])] + [(stdev(means) / math.sqrt(seeds), seeds - 1.0)]
    found = [PairedDifference(fmean(means), error, 0.0, 0.0, freedom) for error, freedom in errors]
    half = max(t_quantile(0.975, one.freedom) * one.standard_error for one in found)
    p_value = max(tail(one, beyond=beyond) for one in found)
    return Difference(fmean(means), fmean(means) - half, fmean(means) + half, p_value, seeds)


def _of_latents(one: Accuracies) -> float:
    """The variance that the latents of a seed give its difference, points squared; infinite where an arm has a single one."""
    return math.fsum(variance(arm) / len(arm) if len(arm) > 1 else math.inf for arm in one) * 100**2
