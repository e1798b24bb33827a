"""Words that name a value, as in `Final rating: 8`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from sarm.judges.grammar.scales import OTHER, OWN, Line, Scale
from sarm.judges.grammar.values import ASPECTS, VALUE, hedged, is_whole, value_of

Naming = Literal["ours", "another", "doubtful"]


class Label(NamedTuple):
    """Words that name a value, as patterns. `strong` ones announce it whatever follows, `weak` ones only where a value follows."""

    strong: tuple[str, ...]
    weak: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()


class Statement(NamedTuple):
    """A place where a value is named; None where the value cannot be read."""

    value: float | None
    line: int


_DETERMINERS = "a|an|the|my|this|its|our|your|his|overall|therefore|so|thus|hence"
_BEFORE = (
    "final|overall|total|numeric|numerical|quality|single|own|definitive|resulting|full|whole|answer's|response's|revised|updated|corrected"
    "|adjusted|new"
)
_GIVING = "give|gives|giving|assign|assigning|award|rate|rating|is|as|get|gets|deserve|deserves|with|earn|earns|merit|merits"
_AFTER = (
    "for|of|the|this|that|a|an|response|answer|completion|reply|output|assistant|assistant's|ai|model|model's|out|on|is|are|be|will|would"
    "|should|therefore|thus|hence|here|so|i|we|give|given|assign|assigned|it|as|to|in|overall|final|above|user|query|question"
)
_FOLLOWING = re.compile(
    rf"(?P<words>(?:[ {OWN}{OTHER}()\[\]]|\b(?:{_AFTER})\b(?!'))*)"
    r"(?P<cut>(?:based|considering|given|taking|after|because|since)\b[^:0-9]*(?=:))?(?P<sign>(?: ?(?:[:=|]|->|--?(?= )))*)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(rf"[.;:!?|,(){{}}\[\]=<>{OWN}{OTHER}]|(?<= )- ")
_SENTENCE = re.compile(r"[.;!?]")
# Longest stretches before and behind a label that are looked at: an answer may be of any length.
NEAR, FAR = 300, 2000


def before(text: str, place: int) -> str:
    """What stands near before a place of a text."""
    return text[max(0, place - NEAR) : place]


def last_sentence(text: str) -> str:
    """What of a text stands behind its last full stop, as far as it is near."""
    return _SENTENCE.split(before(text, len(text)))[-1]


def naming(left: str, label: Label, *, begins: bool) -> Naming:
    """What the words before a label make of it: `confidence rating` is another label, `my final rating` ours, `not a rating` a doubt.

    One that `begins` with a capital amid small letters stands for itself whatever precedes it, as in `x Score: 5`.
    """
    clause = _CLAUSE.split(before(left, len(left)))[-1].split()
    if begins and (not clause or (clause[-1].islower() and clause[-1] not in ASPECTS)):
        return "ours"
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", " ".join(clause).lower())
    determiners = _DETERMINERS.split("|")
    named = not words
    while words and not named and words[-1] in {*_BEFORE.split("|"), *label.modifiers, *determiners}:
        named = words.pop() in determiners or not words
    if not named and words[-1] not in _GIVING.split("|"):
        return "another"
    return "doubtful" if hedged(last_sentence(left).rpartition(":")[2]) else "ours"


def heads_of(label: Label) -> re.Pattern[str]:
    """A pattern for the words of a label; its group `strong` is there for a strong one."""
    return re.compile(rf"\b(?:(?P<strong>{'|'.join(label.strong)})|(?:{'|'.join(label.weak) or '(?!)'}))\b(?!')", re.IGNORECASE)


def named(lines: Sequence[Line], label: Label, scale: Scale) -> Iterator[Statement]:
    """Every place in which a value is named, in order."""
    heads = heads_of(label)
    for number, line in enumerate(lines):
        for head in heads.finditer(line.text):
            how = naming(before(line.text, head.start()), label, begins=head[0][0].isupper())
            found = _statement(line, head, number, scale) if how != "another" else None
            if found is not None:
                yield found if how == "ours" else Statement(None, number)


def _statement(line: Line, head: re.Match[str], number: int, scale: Scale) -> Statement | None:
    after = _FOLLOWING.match(line.text, head.end(), head.end() + NEAR)
    if after is None:
        return None
    found = VALUE.match(line.text, after.end())
    if found is not None and is_whole(line.text[found.end() : found.end() + FAR]):
        return Statement(None if OTHER in after["words"] else value_of(found, line, scale), number)
    announced = head["strong"] and (after["sign"] or found)
    return Statement(None, number) if announced and re.search(rf"[0-9{OTHER}]", line.text[after.end() : after.end() + FAR]) else None
