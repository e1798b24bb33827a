"""The statistics behind verdicts, against simulations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from replication.report.statistics import (
    StatisticsError,
    benjamini_hochberg,
    binomial_error,
    compare_with_one_draw,
    holm,
    mcnemar_exact,
    normal_tail,
    paired_bootstrap,
    power_to_differ,
    prediction_interval,
    seeds_that_decide,
    t_tail,
    tail,
    two_way_bootstrap,
    wilson,
)


def test_a_prediction_interval_of_one_seed_is_refused() -> None:
    with pytest.raises(StatisticsError, match="needs 3 seeds, there is 1") as caught:
        prediction_interval((70.0,))
    assert caught.value.exit_code == 2


def test_the_digits_of_the_published_value_count_against_both_verdicts() -> None:
    exact = compare_with_one_draw((70.0, 70.2, 70.1), low=70.5, high=70.5, margin=1.0)
    printed = compare_with_one_draw((70.0, 70.2, 70.1), low=70.0, high=71.0, margin=1.0)
    assert printed.p_equivalent > exact.p_equivalent and printed.p_differs >= exact.p_differs


def draws(*, runs: int, seeds: int, true_difference: float, deviation: float, seed: int) -> list[tuple[tuple[float, ...], float]]:
    random = np.random.default_rng(seed)
    ours = random.normal(70 + true_difference, deviation, size=(runs, seeds))
    published = random.normal(70, deviation, size=runs)
    return [(tuple(float(value) for value in row), float(one)) for row, one in zip(ours, published, strict=True)]


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_the_difference_covers_the_truth_in_95_percent(seeds: int) -> None:
    sample = draws(runs=1500, seeds=seeds, true_difference=0.7, deviation=0.8, seed=1)
    found = [compare_with_one_draw(ours, low=one, high=one, margin=1.5) for ours, one in sample]
    covered = sum(one.low <= 0.7 <= one.high for one in found) / len(found)
    assert 0.935 <= covered <= 0.965


@pytest.mark.parametrize("true_difference", [0.0, 1.5, -1.5])
def test_a_true_difference_within_the_margin_differs_in_less_than_5_percent(true_difference: float) -> None:
    sample = draws(runs=1500, seeds=4, true_difference=true_difference, deviation=0.8, seed=2)
    wrong = sum(compare_with_one_draw(ours, low=one, high=one, margin=1.5).p_differs <= 0.05 for ours, one in sample) / len(sample)
    assert wrong < 0.05


def test_a_true_difference_at_the_margin_is_equivalent_in_at_most_5_percent() -> None:
    sample = draws(runs=1500, seeds=4, true_difference=1.5, deviation=0.3, seed=3)
    wrong = sum(compare_with_one_draw(ours, low=one, high=one, margin=1.5).p_equivalent <= 0.05 for ours, one in sample) / len(sample)
    assert 0.03 < wrong < 0.067


def test_the_power_to_differ_is_as_stated() -> None:
    sample = draws(runs=1500, seeds=4, true_difference=4.0, deviation=0.6, seed=4)
    shown = sum(compare_with_one_draw(ours, low=one, high=one, margin=1.5).p_differs <= 0.05 for ours, one in sample) / len(sample)
    assert shown == pytest.approx(power_to_differ(true_difference=4.0, deviation=0.6, seeds=4, margin=1.5), abs=0.035)


def test_the_prediction_interval_holds_one_more_seed_in_95_percent() -> None:
    sample = draws(runs=2000, seeds=3, true_difference=0.0, deviation=1.0, seed=5)
    inside = sum(bounds.low <= one <= bounds.high for ours, one in sample for bounds in [prediction_interval(ours)]) / len(sample)
    assert 0.937 <= inside <= 0.963


def test_the_wilson_interval_covers_in_about_95_percent() -> None:
    credits = np.random.default_rng(6).binomial(183, 0.64, size=1500)
    inside = sum(bounds.low <= 64 <= bounds.high for count in credits for bounds in [wilson(float(count), 183)]) / len(credits)
    assert 0.93 <= inside <= 0.97


def test_the_paired_bootstrap_covers_in_about_95_percent() -> None:
    random, inside, runs = np.random.default_rng(7), 0, 200
    for run in range(runs):
        subsets = {name: random.normal(0.03, 0.4, size=size).tolist() for name, size in (("Math", 183), ("Safety", 200), ("Ties", 51))}
        found = paired_bootstrap(subsets, seed=run, resamples=400)
        inside += found.low <= 3.0 <= found.high
    assert 0.90 <= inside / runs <= 0.985


@pytest.mark.parametrize(("seeds", "over_seeds", "over_items"), [(3, 2.0, 0.05), (3, 0.2, 0.4), (5, 2.0, 0.05)])
def test_the_two_way_bootstrap_covers_the_truth_over_few_seeds_and_items(seeds: int, over_seeds: float, over_items: float) -> None:
    """Whichever of them moves the difference: of three seeds the bare percentiles held it in 80 to 86 of 100 where seeds do.

    In 1,500 runs of 600 resamples the interval held it in 91.3, 94.9 and 94.0 of 100, and the tail was wrong in 7.1, 5.4 and 5.2; from
    these the bounds are two and a half standard errors of 400 runs away.
    """
    random, inside, alone, wrongly, runs = np.random.default_rng(11), 0, 0, 0, 400
    for run in range(runs):
        items = {name: random.normal(0, over_items, size=size) for name, size in (("Math", 83), ("Safety", 100))}
        moved = 3.0 + random.normal(0, over_seeds, size=seeds)
        per_seed = [{name: (values + one / 100).tolist() for name, values in items.items()} for one in moved]
        found = two_way_bootstrap(per_seed, seed=run, resamples=200)
        one = two_way_bootstrap(per_seed[:1], seed=run, resamples=50)
        inside += found.low <= 3.0 <= found.high
        alone += one.low <= 3.0 <= one.high
        wrongly += tail(found, beyond=3.0) < 0.05
    assert inside / runs >= 0.88 and wrongly / runs <= 0.104
    # And it does not buy this with any width: what items alone promise is kept where seeds do not matter.
    assert (alone < inside) if over_seeds > over_items else inside / runs <= 0.99


def test_the_tail_and_the_interval_of_few_seeds_say_the_same() -> None:
    per_seed = [{"Math": [0.0, 1.0, 0.5, 0.0]}, {"Math": [0.5, 1.0, 0.5, 0.0]}, {"Math": [0.0, 1.0, 1.0, 0.5]}]
    found = two_way_bootstrap(per_seed, seed=0, resamples=500)
    assert 2 <= found.freedom < math.inf and found.low < found.estimate < found.high
    assert t_tail((found.estimate - found.low) / found.standard_error, found.freedom) == pytest.approx(0.025)
    assert t_tail(1.96, math.inf) == pytest.approx(normal_tail(1.96)) == pytest.approx(0.025, abs=1e-4)


def test_a_bootstrap_over_seeds_needs_the_same_items_in_each() -> None:
    with pytest.raises(StatisticsError, match="same items"):
        two_way_bootstrap([{"Math": [0.0, 1.0]}, {"Math": [0.0, 1.0, 1.0]}], seed=0)
    with pytest.raises(StatisticsError, match="at least one seed"):
        two_way_bootstrap([], seed=0)
    found = two_way_bootstrap([{"Math": [0.5, 0.5]}, {"Math": [0.5, 0.5]}], seed=0)
    assert (found.estimate, found.low, found.high) == (50.0, 50.0, 50.0)


def test_mcnemar_is_wrong_in_at_most_5_percent() -> None:
    random = np.random.default_rng(8)
    p_values = [mcnemar_exact(only_ours=int(a), only_theirs=30 - int(a)) for a in random.binomial(30, 0.5, size=1000)]
    assert sum(p <= 0.05 for p in p_values) / len(p_values) <= 0.05
    assert mcnemar_exact(only_ours=0, only_theirs=0) == 1.0


def test_families_of_true_nulls_rarely_hold_a_discovery() -> None:
    random = np.random.default_rng(9)
    families = random.uniform(size=(400, 21))
    assert sum(min(benjamini_hochberg(family.tolist())) <= 0.05 for family in families) / 400 < 0.085
    assert all(min(holm(family)) == pytest.approx(min(1, 21 * min(family))) for family in families[:3].tolist())
    assert benjamini_hochberg(()) == ()


def test_the_bootstrap_of_items_that_never_differ_is_a_point() -> None:
    found = paired_bootstrap({"Math": [0.0, 0.0, 0.0]}, seed=0)
    assert (found.estimate, found.standard_error) == (0.0, 0.0)
    with pytest.raises(StatisticsError, match="Safety"):
        paired_bootstrap({"Math": [0.0, 1.0], "Safety": [1.0]}, seed=0)


def test_the_number_of_seeds_that_decides_really_decides() -> None:
    seeds = seeds_that_decide(difference=0.2, deviation=0.5, margin=1.5)
    assert seeds is not None
    ours = np.random.default_rng(10).normal(size=seeds)
    ours = 70.2 + 0.5 * (ours - ours.mean()) / ours.std(ddof=1)
    assert compare_with_one_draw(ours.tolist(), low=70, high=70, margin=1.5).p_equivalent <= 0.05
    assert compare_with_one_draw(ours.tolist()[:2], low=70, high=70, margin=1.5).p_equivalent > 0.05
    assert seeds_that_decide(difference=1.4, deviation=1.0, margin=1.5) is None


def test_seeds_that_are_there_and_have_not_decided_are_never_named() -> None:
    """Digits that leave half a point of doubt count in the number as they do in the test, so the two agree at every number of seeds."""
    decided = 0
    for ours, published in draws(runs=400, seeds=4, true_difference=0.6, deviation=0.4, seed=3):
        found = compare_with_one_draw(ours, low=published - 0.5, high=published + 0.5, margin=1.5)
        deviation = found.standard_error / np.sqrt(1 + 1 / len(ours))
        needed = seeds_that_decide(difference=found.difference, deviation=deviation, margin=1.5, least=2, digits=0.5)
        enough = min(found.p_equivalent, found.p_differs) <= 0.05
        assert enough == (needed is not None and needed <= len(ours)), (found, needed)
        decided += enough
    assert 40 < decided < 360


def test_the_error_over_items_is_binomial() -> None:
    assert binomial_error(50, 100) == pytest.approx(5.0)
