"""The numbers that were asked for, and marks in the places where an answer speaks of a scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Scale(NamedTuple):
    """The numbers that were asked for, from lowest to highest; `parts` where 8.5 is one of them."""

    lowest: int
    highest: int
    parts: bool


class Line(NamedTuple):
    """A line in which scales are marks; `beyond` is the largest end of another scale that the answer speaks of, 0 for none."""

    text: str
    beyond: int


# What stands for a scale in a line: ours, or another one. Neither is a digit, so that no end of a scale is ever read as a value.
OWN, OTHER = "\ue000", "\ue001"
_A = r"(?:\b(?:an?|the|our|this|your) )?"
_TOP = r"(?P<top>[0-9]{1,6})(?:\.0{1,3})?(?![0-9/%]|[.,-][0-9])"
_LOW_TOP = rf"(?P<low>[0-9]{{1,6}}) ?(?:-|to|through|and|\.\.|\.\.\.) ?{_TOP}"
_UNIT = r"(?: ?(?:points?|pts|stars?)\b)?"
_OF = rf"(?:/ ?|(?:out of|of|from) ){_A}(?:(?:possible|total|maximum|max|highest) )?(?:of )?"


def _compiled(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


# Scales that are called so, and ends that stand behind a number or in brackets.
_NAMED = _compiled(
    rf"[(\[]?(?:\b(?:on|in|using) )?{_A}\bscale:? ?(?:of |from |is |= ?)?(?:from )?{_LOW_TOP}[)\]]?",
    rf"[(\[]?(?:\bon )?{_A}\b{_LOW_TOP}(?: ?-? ?point)? scale[)\]]?",
    rf"(?:\bon )?{_A}\b(?P<top>[0-9]{{1,6}})[ -]point scale",
)
_ENDS = _compiled(
    rf"(?<=[0-9\])}}]){_UNIT} ?[(\[]?{_OF}{_TOP}{_UNIT}[)\]]?",
    rf"(?<=[a-z] )[(\[]?\b(?:out of|max(?:imum)?(?: of)?):? ?{_TOP}{_UNIT}[)\]]?",
    rf"[(\[](?:max(?:imum)?|best|highest|top|out of)(?: is| of|:|=)? ?{_TOP}{_UNIT}[)\]]",
    rf"\((?:with |where )?{_TOP} ?(?:=|is|being|max)[^()0-9]{{0,80}}\)",
    rf"[(\[](?:from |between )?{_LOW_TOP}(?:, inclusive)?[)\]]",
    r"\b(?:from |between )(?P<low>[01]) ?(?:-|to|and) ?(?P<top>[0-9]{1,6})\b(?!\.[0-9]| ?[-/])",
    r"^(?P<low>[01]) ?(?:-|to) ?(?P<top>[0-9]{1,6})(?= ?:)",
)


def scaled(lines: Sequence[str], scale: Scale) -> list[Line]:
    """Lines with marks in the places of scales. The end of another scale that is called a scale holds for all lines."""
    others: list[int] = []

    def mark(found: re.Match[str]) -> str:
        low, top = found.groupdict().get("low"), int(found["top"])
        own = top == scale.highest and (low is None or int(low) in (0, scale.lowest))
        others.extend([] if own or found.re not in _NAMED else [top])
        return f" {OWN} " if own else f" {OTHER} "

    def marked(line: str) -> str:
        for pattern in (*_NAMED, *_ENDS):
            line = pattern.sub(mark, line)
        return " ".join(line.split())

    texts = [marked(line) for line in lines]
    return [Line(text, max(others, default=0)) for text in texts]
