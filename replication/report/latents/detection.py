"""How much better explanations tell a latent's contexts from others than those of a frozen random encoder do (claim C7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

CONTROL = "control-"
RESAMPLES = 10_000


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


def accuracies(rows: Sequence[Mapping[str, Any]]) -> Accuracies | None:
    """The two arms of one `explanations.jsonl`, without latents that were listed by hand; None where an arm has no detection score."""
    scored = [row for row in rows if row["status"] == "explained" and row["detection"] and row["group"] != "listed"]
    arms: tuple[list[float], list[float]] = ([], [])
    for row in scored:
        arms[str(row["group"]).startswith(CONTROL)].append(float(row["detection"]["balanced_accuracy"]))
    return Accuracies(tuple(arms[0]), tuple(arms[1])) if arms[0] and arms[1] else None


def difference(per_seed: Sequence[Accuracies], *, beyond: float = 0.0, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Bootstrap over seeds and, within each arm of a seed, over latents, which are drawn anew each time that a seed is.

    Raises ValueError for no seed.
    The p value is the share of resamples at or below `beyond` (points), one added to both counts, so that it is never 0.
    """
    if not per_seed:
        raise ValueError("no seed has detection scores of both encoders")
    # Loaded here: a plan must not wait for numpy.
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(seed)

    def means(values: Sequence[float]) -> Any:
        array = np.array(values)
        return array[rng.integers(len(array), size=(resamples, len(array)))].mean(axis=1)

    total = np.zeros(resamples)
    for _ in per_seed:
        drawn = np.stack([means(one.ours) - means(one.control) for one in per_seed])
        total += 100 / len(per_seed) * drawn[rng.integers(len(per_seed), size=resamples), np.arange(resamples)]
    low, high = np.quantile(total, [0.025, 0.975])
    p_value = (1 + int((total <= beyond).sum())) / (1 + resamples)
    estimate = 100 * sum(one.difference for one in per_seed) / len(per_seed)
    return Difference(estimate, float(low), float(high), p_value, len(per_seed))
