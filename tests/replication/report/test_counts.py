"""Printed numbers as intervals, and the counts of items that print so."""

from __future__ import annotations

from fractions import Fraction

import pytest

from replication.report.counts import achievable_counts, coarsest_grain, interval_of


def test_a_rounded_number_is_closed_at_both_ends() -> None:
    interval = interval_of("53.5", rounding="half-even")
    assert (interval.low, interval.high) == (Fraction("53.45"), Fraction("53.55"))
    assert interval.holds(Fraction("53.45")) and interval.holds(Fraction("53.55"))


def test_a_truncated_number_is_open_above() -> None:
    interval = interval_of("53.55", rounding="truncate")
    assert interval.holds(Fraction("53.55")) and interval.holds(Fraction("53.5599"))
    assert not interval.holds(Fraction("53.56")) and not interval.holds(Fraction("53.5499"))


def test_a_whole_number_stands_for_one_unit() -> None:
    assert interval_of("40", rounding="half-even").low == Fraction("39.5")


@pytest.mark.parametrize("text", ["n/a", "nan", "inf", "", "5,3"])
def test_what_is_not_a_number_has_no_interval(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        interval_of(text, rounding="half-even")


def test_counts_follow_the_rounding_rule() -> None:
    truncated = interval_of("88.28", rounding="truncate")
    assert achievable_counts(truncated, n=495, grain="integers") == (437,)
    assert achievable_counts(interval_of("88.2", rounding="half-even"), n=495, grain="halves") == (Fraction(873, 2),)
    assert coarsest_grain(interval_of("35.87", rounding="truncate"), n=160) is None
