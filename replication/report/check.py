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


def passed(condition: bool) -> Outcome:
    """The outcome of a check that has a threshold."""
    return "pass" if condition else "fail"
