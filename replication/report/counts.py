"""Printed percentages as intervals, and the counts of items that can lie behind them (GRIM).

Source: spec section 3 of the interface (rounding), RewardBench 2 scoring (a row's credit is 1 over the number of joint best).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple

Rounding = Literal["half-even", "truncate"]
Grain = Literal["integers", "halves", "twelfths"]

DENOMINATORS: dict[Grain, int] = {"integers": 1, "halves": 2, "twelfths": 12}


class Interval(NamedTuple):
    """The exact values that print as one string; the lower end belongs to it, the upper one only if `closed`."""

    low: Fraction
    high: Fraction
    closed: bool

    def holds(self, value: Fraction) -> bool:
        """Whether a value prints as this string."""
        return self.low <= value < self.high or (self.closed and value == self.high)

    def distance(self, other: Interval) -> Fraction:
        """The gap between two intervals in their unit; 0 where they touch or overlap."""
        return max(Fraction(0), self.low - other.high, other.low - self.high)


def interval_of(printed: str, *, rounding: Rounding) -> Interval:
    """The interval that a printed number stands for.

    Rounding is closed at both ends, since the value in the middle may go either way after a double rounding.
    Raises ValueError where the string is no number.
    """
    try:
        number = Decimal(printed)
    except ArithmeticError as error:
        raise ValueError(f"{printed!r} is not a number") from error
    if not number.is_finite():
        raise ValueError(f"{printed!r} is not a finite number")
    ulp = Fraction(Decimal((0, (1,), int(number.as_tuple().exponent))))
    value = Fraction(number)
    if rounding == "half-even":
        return Interval(low=value - ulp / 2, high=value + ulp / 2, closed=True)
    if value < 0:
        return Interval(low=value - ulp, high=value, closed=True)
    return Interval(low=value, high=value + ulp, closed=False)


def achievable_counts(interval: Interval, *, n: int, grain: Grain) -> tuple[Fraction, ...]:
    """The counts of credits out of `n` items whose percentage lies in the interval (percent), smallest first."""
    step = DENOMINATORS[grain]
    first = math.ceil(interval.low * n * step / 100)
    last = math.floor(interval.high * n * step / 100)
    counts = (Fraction(units, step) for units in range(max(first, 0), min(last, n * step) + 1))
    return tuple(count for count in counts if interval.holds(count * 100 / n))


def coarsest_grain(interval: Interval, *, n: int) -> Grain | None:
    """The coarsest unit in which the interval holds a count; None where no count of any unit can print so."""
    grains: tuple[Grain, ...] = ("integers", "halves", "twelfths")
    return next((grain for grain in grains if achievable_counts(interval, n=n, grain=grain)), None)


def nearest_difference(ours: Sequence[Fraction], theirs: Sequence[Fraction]) -> Fraction:
    """The smallest difference in items between two sets of possible counts. Raises ValueError where one is empty."""
    return min(abs(left - right) for left in ours for right in theirs)


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """The interval of the unweighted mean of values that are each known only by their printed digits."""
    size = len(intervals)
    low = sum((one.low for one in intervals), Fraction(0)) / size
    high = sum((one.high for one in intervals), Fraction(0)) / size
    return Interval(low=low, high=high, closed=all(one.closed for one in intervals))


def overlap(left: Interval, right: Interval) -> bool:
    """Whether some value prints as both strings."""
    if left.low > right.low:
        left, right = right, left
    return right.low < left.high or (right.low == left.high and left.closed)
