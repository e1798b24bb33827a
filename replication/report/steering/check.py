"""A check: a question, what was found, and whether that is what the claim needs."""

from __future__ import annotations

from typing import Literal, NamedTuple

# "stated": a number without a threshold; "not measured": the data cannot answer the question.
Outcome = Literal["pass", "fail", "stated", "not measured"]


class Check(NamedTuple):
    """A line of the table of checks."""

    name: str
    question: str
    finding: str
    outcome: Outcome


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign; one that would be rounded away keeps a digit, so that 0.000 means that nothing moved."""
    if value and round(value, digits) == 0:
        return f"{value:+.1e}"
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def passed(condition: bool) -> Outcome:
    """The outcome of a check that has a threshold."""
    return "pass" if condition else "fail"
