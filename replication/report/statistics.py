"""The statistics behind the verdicts, all of them from scipy and statsmodels: numbers in, numbers out.

The published value is one draw of a training run, so that its difference from the mean of S seeds with standard deviation s has the
standard error s * sqrt(1 + 1/S) with S - 1 degrees of freedom: the two-sample t test with one observation in the second sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

MOST_SEEDS = 200


class StatisticsError(ValueError):
    """A statistic that was asked of data that cannot give it."""

    exit_code = 2


class Bounds(NamedTuple):
    """An interval in the unit of its data."""

    low: float
    high: float


class Comparison(NamedTuple):
    """Our seeds against one published draw; points. `low` and `high` bound the difference at 1 - alpha."""

    difference: float
    standard_error: float
    low: float
    high: float
    p_equivalent: float
    p_differs: float


class PairedDifference(NamedTuple):
    """Ours minus theirs over the same items, in points. `freedom` is that of the error's t distribution, infinite for items alone."""

    estimate: float
    standard_error: float
    low: float
    high: float
    freedom: float = math.inf


def wilson(credits: float, n: int, *, alpha: float = 0.05) -> Bounds:
    """The Wilson interval of a proportion, in percent; credits may be fractional. Source: Wilson 1927, by statsmodels."""
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415 - a second of import that `list` must not pay

    if n < 1 or not 0 <= credits <= n:
        raise StatisticsError(f"{credits} credits of {n} items are no proportion")
    low, high = proportion_confint(count=credits, nobs=n, alpha=alpha, method="wilson")
    return Bounds(low=100 * float(low), high=100 * float(high))


def binomial_error(percent: float, n: int) -> float:
    """The standard error over items of a percentage, in points."""
    if n < 1:
        raise StatisticsError("a standard error needs at least one item")
    share = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / n)


def prediction_interval(per_seed: Sequence[float], *, alpha: float = 0.05, least: int = 3) -> Bounds:
    """Where one more seed would lie: mean +- t * s * sqrt(1 + 1/S). Raises StatisticsError below `least` seeds."""
    from scipy import stats  # noqa: PLC0415

    seeds = len(per_seed)
    if seeds < max(least, 2):
        raise StatisticsError(f"a prediction interval needs {max(least, 2)} seeds, there {'is' if seeds == 1 else 'are'} {seeds}")
    half = float(stats.t.ppf(1 - alpha / 2, seeds - 1)) * stdev(per_seed) * math.sqrt(1 + 1 / seeds)
    return Bounds(low=fmean(per_seed) - half, high=fmean(per_seed) + half)


def mean_over_seeds(per_seed: Sequence[float], *, alpha: float = 0.05) -> Bounds:
    """Where the mean of all seeds would lie: mean +- t * s / sqrt(S). Raises StatisticsError below two seeds."""
    from scipy import stats  # noqa: PLC0415

    seeds = len(per_seed)
    if seeds < 2:
        raise StatisticsError(f"an interval over seeds needs 2 seeds, there {'is' if seeds == 1 else 'are'} {seeds}")
    half = float(stats.t.ppf(1 - alpha / 2, seeds - 1)) * stdev(per_seed) / math.sqrt(seeds)
    return Bounds(low=fmean(per_seed) - half, high=fmean(per_seed) + half)


def compare_with_one_draw(
    per_seed: Sequence[float], *, low: float, high: float, margin: float, alpha: float = 0.05, least_deviation: float = 0.0
) -> Comparison:
    """Two one-sided tests of equivalence, and the test that the difference lies beyond the margin.

    `low` and `high` are the ends of what the published digits allow: equivalence must hold at the farther end, difference at the nearer.
    `least_deviation` (points) stands in where the seeds happen to agree more closely than the metric resolves.
    `p_differs` is two-sided, so that it is below alpha exactly when the 1 - alpha interval of the difference excludes the margin.
    Raises StatisticsError for fewer than two seeds or a margin that is not positive. Source: Lakens 2017 (TOST).
    """
    from scipy import stats  # noqa: PLC0415

    seeds = len(per_seed)
    if margin <= 0:
        raise StatisticsError(f"a margin must be positive, it is {margin:g}")
    if seeds < 2:
        raise StatisticsError(f"a comparison of retrained results needs 2 seeds, there {'is' if seeds == 1 else 'are'} {seeds}")
    mean, deviation = fmean(per_seed), max(stdev(per_seed), least_deviation)
    if deviation == 0:
        raise StatisticsError("all seeds gave exactly the same number, so their spread is unknown")

    def p_of(shifted: float, published: float, alternative: str) -> float:
        test = stats.ttest_ind_from_stats(shifted, deviation, seeds, published, 0.0, 1, equal_var=True, alternative=alternative)
        return float(test.pvalue)

    p_equivalent = max(p_of(mean + margin, high, "greater"), p_of(mean - margin, low, "less"))
    p_above, p_below = p_of(mean - margin, high, "greater"), p_of(mean + margin, low, "less")
    error = deviation * math.sqrt(1 + 1 / seeds)
    half = float(stats.t.ppf(1 - alpha / 2, seeds - 1)) * error
    middle = (low + high) / 2
    return Comparison(
        difference=mean - middle, standard_error=error, low=mean - high - half, high=mean - low + half,
        p_equivalent=p_equivalent, p_differs=min(1.0, 2 * min(p_above, p_below)),
    )  # fmt: skip


def seeds_that_decide(
    *, difference: float, deviation: float, margin: float, alpha: float = 0.05, least: int = 3, digits: float = 0.0
) -> int | None:
    """The fewest seeds that would show equivalence or difference if difference and deviation (points) stay as they are.

    `digits` is how far (points) the published value may lie from what is printed; as in the test, that counts against either.
    None where no number does: the published value is one draw, so the interval never becomes narrower than that.
    """
    from scipy import stats  # noqa: PLC0415

    inside = abs(difference) < margin
    for seeds in range(max(least, 2), MOST_SEEDS + 1):
        quantile = float(stats.t.ppf(1 - (alpha if inside else alpha / 2), seeds - 1))
        half = quantile * deviation * math.sqrt(1 + 1 / seeds) + digits
        if (abs(difference) + half < margin) if inside else (abs(difference) - half > margin):
            return seeds
    return None


def power_to_differ(*, true_difference: float, deviation: float, seeds: int, margin: float, alpha: float = 0.05) -> float:
    """The probability that `seeds` retrainings show a difference beyond the margin when the true one is `true_difference` (points)."""
    from scipy import stats  # noqa: PLC0415

    error = deviation * math.sqrt(1 + 1 / seeds)
    critical = float(stats.t.ppf(1 - alpha / 2, seeds - 1))
    above = stats.nct.sf(critical, seeds - 1, (true_difference - margin) / error)
    below = stats.nct.sf(critical, seeds - 1, (-true_difference - margin) / error)
    return float(above + below)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values; a discovery at level q is one whose adjusted value is at most q."""
    return _adjusted(p_values, method="fdr_bh")


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values that keep the family-wise error rate."""
    return _adjusted(p_values, method="holm")


def _adjusted(p_values: Sequence[float], *, method: str) -> tuple[float, ...]:
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    if not p_values:
        return ()
    return tuple(float(value) for value in multipletests(list(p_values), method=method)[1])


def mcnemar_exact(*, only_ours: int, only_theirs: int) -> float:
    """The exact two-sided McNemar p value of one subset, from the numbers of items that only one side gets right."""
    from statsmodels.stats.contingency_tables import mcnemar  # noqa: PLC0415

    if only_ours + only_theirs == 0:
        return 1.0
    return float(mcnemar([[0, only_ours], [only_theirs, 0]], exact=True).pvalue)


def paired_bootstrap(
    differences: Mapping[str, Sequence[float]], *, seed: int, resamples: int = 10_000, alpha: float = 0.05
) -> PairedDifference:
    """The unweighted mean over subsets of the mean paired difference, resampled within each subset.

    `differences` holds, for each subset, ours minus theirs of each item's credit (0 to 1); for Ties of each group of prompts, whose
    mean is the Ties score. Result in points. Raises StatisticsError for an empty subset or one of a single item.
    """
    import numpy as np  # noqa: PLC0415

    short = [name for name, values in differences.items() if len(values) < 2]
    if short or not differences:
        raise StatisticsError(f"a bootstrap needs two items in each subset; too few in: {', '.join(short) or 'no subset given'}")
    samples = tuple(np.asarray(values, dtype=float) for values in differences.values())

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return 100 * np.mean([part.mean(axis=axis) for part in parts], axis=0)

    estimate = float(statistic(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return PairedDifference(estimate=estimate, standard_error=0.0, low=estimate, high=estimate)
    return _resampled(samples, statistic, estimate=estimate, seed=seed, resamples=resamples, alpha=alpha, batch=500)


def two_way_bootstrap(
    per_seed: Sequence[Mapping[str, Sequence[float]]], *, seed: int, resamples: int = 10_000, alpha: float = 0.05
) -> PairedDifference:
    """As `paired_bootstrap`, with training seeds resampled as well as items: one mapping for each seed, over the same items.

    Seeds are few, so that the percentiles of their resamples would promise too much (of three seeds 80 to 86 % instead of
    95; this 91 to 95): each draws one seed less than there are, and t takes the place of the normal quantile (`_few_seeds`). Where seeds
    disagree item by item and not as a whole, the interval is wider than it need be (Owen 2007).
    With one seed only items are resampled, so that the interval says nothing of other seeds.
    Raises StatisticsError for no seed, seeds over different items, and what `paired_bootstrap` raises.
    """
    import numpy as np  # noqa: PLC0415

    if not per_seed or any({k: len(v) for k, v in one.items()} != {k: len(v) for k, v in per_seed[0].items()} for one in per_seed):
        raise StatisticsError("a bootstrap over seeds needs at least one seed, and the same items in each")
    if len(per_seed) == 1:
        return paired_bootstrap(per_seed[0], seed=seed, resamples=resamples, alpha=alpha)
    values = [np.asarray([one[name] for one in per_seed], dtype=float) for name in per_seed[0]]
    short = [name for name, part in zip(per_seed[0], values, strict=True) if part.shape[1] < 2]
    if short:
        raise StatisticsError(f"a bootstrap needs two items in each subset; too few in: {', '.join(short)}")
    estimate = 100 * float(np.mean([part.mean() for part in values]))
    if all(np.ptp(part) == 0 for part in values):
        return PairedDifference(estimate=estimate, standard_error=0.0, low=estimate, high=estimate)

    # What is resampled are places: of seeds, and of items within each subset.
    def statistic(seeds: np.ndarray, *items: np.ndarray, axis: int = -1) -> np.ndarray:
        fewer = seeds[..., 1:, None]
        drawn = [part[fewer, places[..., None, :]].mean(axis=(-2, -1)) for part, places in zip(values, items, strict=True)]
        return 100 * np.mean(drawn, axis=0)

    samples = (np.arange(len(per_seed)), *(np.arange(part.shape[1]) for part in values))
    found = _resampled(samples, statistic, estimate=estimate, seed=seed, resamples=resamples, alpha=alpha, batch=200)
    means = [100 * fmean(float(part[one].mean()) for part in values) for one in range(len(per_seed))]
    return _few_seeds(means, found.standard_error, alpha=alpha)


def _few_seeds(means: Sequence[float], standard_error: float, *, alpha: float = 0.05) -> PairedDifference:
    """The mean of two seeds or more with the interval of t in place of the normal one.

    `standard_error` is that of the mean, from resamples that each drew one seed less than there are, which makes the variance over seeds
    right (Rao and Wu 1988). Freedom as Satterthwaite 1946: seeds minus one, over the squared share of the variance that seeds have.
    """
    share = min(1.0, stdev(means) ** 2 / len(means) / standard_error**2) if standard_error else 0.0
    freedom = (len(means) - 1) / share**2 if share else math.inf
    estimate, half = fmean(means), t_quantile(1 - alpha / 2, freedom) * standard_error
    return PairedDifference(
        estimate=estimate, standard_error=standard_error, low=estimate - half, high=estimate + half, freedom=freedom
    )  # fmt: skip


def _resampled(
    samples: Sequence[np.ndarray],
    statistic: Callable[..., np.ndarray],
    *,
    estimate: float,
    seed: int,
    resamples: int,
    alpha: float,
    batch: int,
) -> PairedDifference:
    """The percentile interval of a statistic over `samples`, each resampled by itself."""
    import numpy as np  # noqa: PLC0415
    from scipy import stats  # noqa: PLC0415

    result = stats.bootstrap(
        samples, statistic, n_resamples=resamples, vectorized=True, confidence_level=1 - alpha, method="percentile",
        batch=batch, rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = (float(bound) for bound in result.confidence_interval)
    return PairedDifference(estimate=estimate, standard_error=float(result.standard_error), low=low, high=high)


def tail(found: PairedDifference, *, beyond: float) -> float:
    """The one-sided p value of a difference above `beyond` points."""
    if found.standard_error == 0:
        return 0.0 if found.estimate > beyond else 1.0
    return t_tail((found.estimate - beyond) / found.standard_error, found.freedom)


def normal_tail(z: float) -> float:
    """The upper tail of the standard normal distribution: the one-sided p value of a z statistic."""
    return t_tail(z, math.inf)


def t_tail(t: float, freedom: float) -> float:
    """The upper tail of the t distribution, for infinite freedom of the normal one: the one-sided p value of such a statistic."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.t.sf(t, freedom))


def t_quantile(share: float, freedom: float) -> float:
    """The value below which the t distribution has this share; for infinite freedom the normal one's."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.t.ppf(share, freedom))


def normal_quantile(share: float) -> float:
    """The value below which the standard normal distribution has this share."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.norm.ppf(share))


def sidak_z(comparisons: int, *, alpha: float) -> float:
    """The bound for |z| that any of `comparisons` independent standard normal values passes with chance `alpha`, in standard deviations.

    For dependent values of a joint normal distribution the chance is at most that. Raises StatisticsError for no comparison.
    Source: Sidak 1967, two-sided.
    """
    if comparisons < 1:
        raise StatisticsError("a bound needs at least one comparison")
    return normal_quantile((1 + (1 - alpha) ** (1 / comparisons)) / 2)


def normal_power(standardized_effect: float, *, alpha: float = 0.05) -> float:
    """The power of a one-sided z test for a true effect given in standard errors."""
    from statsmodels.stats.power import normal_power as power  # noqa: PLC0415

    return float(power(standardized_effect, nobs=1, alpha=alpha, alternative="larger", sigma=1.0))


def range_bound(groups: int, *, alpha: float) -> float:
    """The quantile of the studentized range of `groups` independent values with known error, in errors of one value (Tukey)."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.studentized_range.ppf(1 - alpha, groups, math.inf))


def range_tail(distance: float, groups: int) -> float:
    """The one-sided p value of a range `distance` errors below what it must not pass; alpha at `range_bound(alpha=2 * alpha)`."""
    from scipy import stats  # noqa: PLC0415

    tail = float(stats.studentized_range.sf(abs(distance), groups, math.inf)) / 2
    return tail if distance >= 0 else 1 - tail


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation of ranks, equal values sharing theirs; None below two values or where one side is constant."""
    from scipy import stats  # noqa: PLC0415

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)
