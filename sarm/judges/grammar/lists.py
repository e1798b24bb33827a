"""The list of numbers that an answer names last under a label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sarm.judges.grammar.labels import Label, before, heads_of, naming
from sarm.judges.grammar.text import plain, spoken
from sarm.judges.grammar.values import HEDGES

MOST_NUMBERS = 10_000
_THING = r"(?:(?:texts?|numbers?|contexts?|sequences?|items?|sentences?|nos?\.?|#) ?)?"
_ITEM = re.compile(
    rf"{_THING}[\[({{]*(?P<first>[0-9]{{1,4}})(?P<last> ?(?:-|to|through) ?[0-9]{{1,4}})?(?![0-9%]|[.:/-][0-9])[\])}}]*"
    r"(?: ?\((?P<remark>[^()0-9]*)\))?",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r" ?(?:, ?(?:and |& ?)?|; ?(?:and |& ?)?|and |& ?|\|) ?| (?=[0-9\[(])", re.IGNORECASE)
_END = re.compile(r"[ \])}]*[.!]?(?: (?P<reason>(?:because|since)\b.*))?$|[ \])}]*(?:\.|-) (?P<more>[^0-9]*)$", re.IGNORECASE)
_NONE = re.compile(r"[\[({ ]*none\b(?P<more>[^0-9]*)$", re.IGNORECASE)
_BULLET = re.compile(rf"^(?:[-+*\u2022\u00b7] +)?{_ITEM.pattern}(?:[.:)] (?P<more>[^0-9]*)|[.,;]?)$", re.IGNORECASE)
_LIKE_AN_ITEM = re.compile(rf"^(?:[-+*\u2022\u00b7] *|and )?{_THING}[\[({{]*[0-9]", re.IGNORECASE)
_SIGN = re.compile(r" ?[:=]")
# Words that may stand in a remark on a text without doubting that it is meant.
_HARMLESS = frozenset(("about", "around", "below", "under", "above", "over", "or", "first", "before", "until", "have", "than", "between"))
_DOUBT = (HEDGES - _HARMLESS) | {"also", "but", "sure", "unsure"}


def named_list(answer: str, label: Label) -> tuple[int, ...] | None:
    """The numbers that an answer lists last under a label, none for `none`; None where that list cannot be read."""
    said = spoken(answer)
    lines = plain(said) if said is not None else []
    heads = heads_of(label)
    places = [
        (number, sign.end(), how)
        for number, line in enumerate(lines)
        for head in heads.finditer(line)
        if (how := naming(before(line, head.start()), label, begins=False)) != "another" and (sign := _SIGN.match(line, head.end()))
    ]
    if not places or places[-1][2] == "doubtful":
        return None
    number, start, _ = places[-1]
    tail = lines[number][start:].strip()
    return _listed(tail) if tail else _listed_below(lines[number + 1 :])


def _listed(tail: str) -> tuple[int, ...] | None:
    """The numbers of a list in one line."""
    none = _NONE.match(tail)
    if none:
        return None if _is_doubtful(none["more"]) else ()
    found, place, more = [], 0, True
    while more and (one := _ITEM.match(tail, place)):
        found.append(one)
        between = _BETWEEN.match(tail, one.end())
        more = between is not None and _ITEM.match(tail, between.end()) is not None
        place = between.end() if between is not None and more else one.end()
    end = _END.match(tail, place)
    if not found or not end or _is_doubtful(end["more"], *(one["remark"] for one in found)):
        return None
    return _numbers(found)


def _listed_below(lines: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of a list that has a line for each, or one line below its label."""
    numbers: list[int] = []
    read = 0
    for line in lines:
        bullet = _BULLET.match(line)
        found = None if bullet and _is_doubtful(bullet["more"], bullet["remark"]) else _numbers([bullet]) if bullet else _listed(line)
        if found is None:
            break
        numbers.extend(found)
        read += 1
    # What goes on like the list and cannot be read is a part of it that must not be left out.
    if not read or any(_LIKE_AN_ITEM.match(line) for line in lines[read : read + 1]):
        return None
    return tuple(numbers)


def _numbers(found: Sequence[re.Match[str]]) -> tuple[int, ...] | None:
    """All numbers of some items; None for a range that runs down."""
    numbers: list[int] = []
    for one in found:
        first = int(one["first"])
        last = int(re.sub("[^0-9]", "", one["last"])) if one["last"] else first
        if last < first or len(numbers) > MOST_NUMBERS:
            return None
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def _is_doubtful(*words: str | None) -> bool:
    found = re.findall(r"[a-z]+(?:'[a-z]+)?", " ".join(filter(None, words)).lower())
    return any(word in _DOUBT or word.endswith("n't") for word in found)
