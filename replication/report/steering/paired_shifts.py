"""Statistics of rewards before and after an edit: the same completions twice, so everything is paired and resampled by prompt."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from replication.report.steering.check import signed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2000
# Bounds the memory of a resampling step: batch x prompts numbers.
BATCH = 200


class Interval(NamedTuple):
    """An estimate with its interval. Both ends equal it where nothing varies.

    The ends are NaN where there is one prompt, which tells nothing of others; all are NaN where the estimate is not defined.
    """

    value: float
    low: float
    high: float
    method: str = "BCa"

    @property
    def known(self) -> bool:
        """Whether there is an interval to test by."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def show(self, digits: int = 3) -> str:
        """`value [low, high]`, or why there is none."""
        if not np.isfinite(self.value):
            return "undefined (the rewards before do not vary)"
        if not self.known:
            return f"{signed(self.value, digits)} (one prompt, so no interval)"
        note = "" if self.method == "BCa" else f" ({self.method})"
        return f"{signed(self.value, digits)} [{signed(self.low, digits)}, {signed(self.high, digits)}]{note}"


class Distance(NamedTuple):
    """A Kolmogorov-Smirnov distance between before and after, its paired permutation p value, the 97.5 % bootstrap bound.

    The bound is NaN for one prompt that moved, which tells nothing of others.
    """

    d: float
    p: float
    upper: float


NAN = float("nan")
UNDEFINED = Interval(NAN, NAN, NAN)


def mean_interval(values: Floats, *, level: float, seed: int) -> Interval:
    """The mean of one value a prompt, `[prompts]`, with its bootstrap interval."""
    return ratio_interval(values, np.ones_like(values), level=level, seed=seed)


def ratio_interval(sums: Floats, counts: Floats, *, level: float, seed: int) -> Interval:
    """Mean over completions of prompts with `sums` and `counts`, `[prompts]` each, resampled by prompt."""
    estimate = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(estimate, NAN, NAN)
    if np.ptp(sums / counts) == 0:
        return Interval(estimate, estimate, estimate)

    def mean(total: Floats, count: Floats, axis: int = -1) -> Floats:
        return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

    return _bootstrap((sums, counts), mean, estimate=estimate, level=level, seed=seed)


def standardised_shift(change: Floats, before: Floats, items: Ints, *, level: float, seed: int) -> Interval:
    """d = mean change over the standard deviation of the rewards before, `[completions]` each, resampled by prompt.

    The standard deviation is resampled with the mean. Undefined where the rewards before do not vary.
    """
    if len(before) < 2 or np.ptp(before) == 0:
        return UNDEFINED
    estimate = float(change.mean() / before.std(ddof=1))
    groups = np.unique(items, return_inverse=True)[1]
    centred = before - before.mean()
    parts: tuple[Floats, ...] = tuple(
        np.asarray(np.bincount(groups, weights=part), dtype=np.float64) for part in (change, np.ones_like(change), centred, centred**2)
    )
    if not change.any():
        return Interval(estimate, estimate, estimate)
    if len(parts[0]) < 2:
        return Interval(estimate, NAN, NAN)

    def d(total: Floats, count: Floats, first: Floats, second: Floats, axis: int = -1) -> Floats:
        n = count.sum(axis=axis)
        variance = (second.sum(axis=axis) - first.sum(axis=axis) ** 2 / n) / (n - 1)
        # A resample of equal rewards has no spread; the smallest positive number keeps its d finite and extreme.
        return np.asarray(total.sum(axis=axis) / n / np.sqrt(np.maximum(variance, np.finfo(float).tiny)))

    return _bootstrap(parts, d, estimate=estimate, level=level, seed=seed)


def _bootstrap(parts: tuple[Floats, ...], statistic: object, *, estimate: float, level: float, seed: int) -> Interval:
    """BCa; percentile, and said so, where BCa is not defined (all resamples on one side of the estimate)."""
    for method in ("BCa", "percentile"):
        # Divisions by 0 in the acceleration are how scipy finds that BCa is not defined; the interval says which method it is.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                parts, statistic, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=BATCH, confidence_level=level,
                method=method, rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
        if np.isfinite(found.low) and np.isfinite(found.high):
            return Interval(estimate, float(found.low), float(found.high), method)
    raise ValueError("a bootstrap of finite values gave no finite interval")


def kolmogorov_smirnov(before: Floats, after: Floats, items: Ints, *, seed: int) -> Distance:
    """Distance between the distributions before and after, `[completions]` each.

    scipy's two-sample test takes them for independent; here before and after are exchanged prompt by prompt (permutation), and
    prompts are drawn anew (bootstrap). Completions that do not move cancel in the distance and are left out of the sorting.
    """
    moved = before != after
    if not moved.any():
        return Distance(d=0.0, p=1.0, upper=0.0)
    groups = np.unique(items, return_inverse=True)[1]
    prompts = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=prompts).astype(np.float64)
    values = np.concatenate([before[moved], after[moved]])
    order = np.argsort(values, kind="stable")
    signs = np.repeat([1.0, -1.0], int(moved.sum()))[order]
    owner = np.concatenate([groups[moved], groups[moved]])[order]
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))

    def distances(weights: NDArray[Any], totals: Floats) -> Floats:
        steps = np.cumsum(signs * weights[:, owner], axis=1)[:, ends]
        return np.asarray(np.abs(steps).max(axis=1) / totals)

    d = float(distances(np.ones((1, prompts)), np.array([sizes.sum()]))[0])
    generator = np.random.default_rng(seed)
    swapped = [distances(2.0 * generator.integers(0, 2, (n, prompts)) - 1, np.full(n, sizes.sum())) for n in _batches()]
    p = (1 + int((np.concatenate(swapped) >= d - 1e-12).sum())) / (1 + RESAMPLES)
    if prompts < 2:
        return Distance(d=d, p=p, upper=NAN)
    drawn = [generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=n).astype(np.float64) for n in _batches()]
    upper = np.quantile(np.concatenate([distances(weights, weights @ sizes) for weights in drawn]), 0.975)
    return Distance(d=d, p=p, upper=max(d, float(upper)))


def _batches() -> Iterator[int]:
    done = 0
    while done < RESAMPLES:
        size = min(BATCH, RESAMPLES - done)
        yield size
        done += size


def wasserstein(before: Floats, after: Floats) -> float:
    """Wasserstein-1 distance in standard deviations of the rewards before; NaN where they do not vary."""
    spread = before.std(ddof=1) if len(before) > 1 else 0.0
    return float(stats.wasserstein_distance(before, after) / spread) if spread else float("nan")


def hodges_lehmann(change: Floats) -> float:
    """The median of all means of two changes (Walsh averages), `[n]` to a number."""
    rows, columns = np.triu_indices(len(change))
    return float(np.median((change[rows] + change[columns]) / 2))
