"""The list of numbers that an answer names last under a label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

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
_LIKE_AN_ITEM = re.compile(
    r"^(?:[-+*\u2022\u00b7] *|(?:and|also|plus|or|then|maybe|perhaps|possibly|probably)\b,? ?)*"
    rf"(?:{_THING}[\[({{]*[0-9]|(?:and|or|[&,;|])$)",
    re.IGNORECASE,
)
# A line that names a text to say what it is about, and not that it is one of the list.
_REMARK_ON_A_TEXT = re.compile(
    rf"^(?=[a-z]){_THING}[0-9]{{1,4}} (?:is|was|has|does|talks|speaks|tells|concerns|describes|mentions)\b"
    r"(?!.*\b(?:match\w*|also|too|active|activates?|fits?|belongs?|likely|likewise|same|as well|included?)\b)",
    re.IGNORECASE,
)
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
    return _listed(tail, lines[number + 1 :])


class _Part(NamedTuple):
    """The numbers of one line of a list, and whether it has words beside them."""

    numbers: tuple[int, ...]
    worded: bool


def _listed(tail: str, below: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of a list that begins behind its label, or below it where the `tail` is empty, and goes on as long as its lines do.

    What goes on like the list and cannot be read is a part of it that must not be left out: then there is no list.
    """
    lines = [line for line in ([tail] if tail else []) + list(below) if re.search(r"\w|[&,;|]", line)]
    first = _part(lines[0]) if lines else None
    if first is None:
        return None
    numbers = list(first.numbers)
    read = 1
    for line in lines[1:]:
        part = _part(line)
        if part is None or not part.numbers:
            break
        # Numbered remarks below a list are no part of it: words beside a number go with a list of such lines alone.
        alike = first.numbers and (not part.worded or (first.worded and len(first.numbers) == 1))
        if not alike and not set(part.numbers) <= set(numbers):
            return None
        numbers.extend(part.numbers)
        read += 1
    open_end = read == 1 and tail.endswith((",", ";"))
    return None if open_end or _goes_on(lines[read:], numbers, remarks=bool(tail)) else tuple(numbers)


def _goes_on(lines: Sequence[str], numbers: Sequence[int], *, remarks: bool) -> bool:
    """Whether lines behind a list begin like an item of it, unless as `remarks`, or name a further number before another label begins."""
    if lines and (lines[0].lower() == "none" or (_LIKE_AN_ITEM.match(lines[0]) and not (remarks and _REMARK_ON_A_TEXT.match(lines[0])))):
        return True
    for line in lines:
        if re.search("[:=]", line):
            return False
        item = _BULLET.match(line)
        if item and not item["more"] and not set(_numbers([item]) or ()) <= set(numbers):
            return True
    return False


def _part(line: str) -> _Part | None:
    """One line of a list: an item with or without words of its own, several numbers, or none at all."""
    bullet = _BULLET.match(line)
    if bullet:
        found = None if _is_doubtful(bullet["more"], bullet["remark"]) else _numbers([bullet])
        return None if found is None else _Part(found, bool(bullet["more"] or bullet["remark"]))
    return _in_one_line(line)


def _in_one_line(tail: str) -> _Part | None:
    none = _NONE.match(tail)
    if none:
        return None if _is_doubtful(none["more"]) else _Part((), worded=False)
    found, place, more = [], 0, True
    while more and (one := _ITEM.match(tail, place)):
        found.append(one)
        between = _BETWEEN.match(tail, one.end())
        more = between is not None and _ITEM.match(tail, between.end()) is not None
        place = between.end() if between is not None and more else one.end()
    end = _END.match(tail, place)
    if not found or not end or _is_doubtful(end["more"], *(one["remark"] for one in found)):
        return None
    numbers = _numbers(found)
    return None if numbers is None else _Part(numbers, bool(end["more"] or end["reason"] or any(one["remark"] for one in found)))


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
