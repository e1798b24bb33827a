"""A number as somebody writes it down, and whether the words around it let it stand."""

from __future__ import annotations

import re

from sarm.judges.grammar.scales import OTHER, OWN, Line, Scale

_NUMBER = (
    r"(?<![\w.,/%$\u20ac\u00a3#~^<>+\u00b1-])(?P<number>(?:0|[1-9][0-9]{0,3})(?:\.[0-9]{1,6})?)"
    r"(?![\w%/^\u00b0\u00bd\u00bc\u00be]|[.,:][0-9]|-\w)"
)
VALUE = re.compile(rf"[ \[({{]{{0,8}}{_NUMBER}[\])}}]{{0,8}}(?P<unit> ?(?:points?|pts|stars?)\b)?(?P<scale>(?: ?[{OWN}{OTHER}])*)")
# What makes a number something else than what was meant.
_HEDGES = (
    "not|never|no|nor|neither|than|instead|if|unless|almost|nearly|about|around|approximately|roughly|least|most|below|under|above|over"
    "|between|either|or|maybe|perhaps|possibly|initially|first|tempted|consider|considered|considering|thought|until|before|minus|plus|add"
    "|deduct|lose|have|might|could|cannot|without|except|excluding|otherwise|previously|originally"
)
HEDGES = frozenset(_HEDGES.split("|"))
_DOUBT = re.compile(
    r"^[ ,;.(\[-]*(?:or|maybe|perhaps|possibly|to|minus|plus|not|but|almost|nearly|if|up|and|correction|actually|wait|no)\b", re.IGNORECASE
)
_ENDING = re.compile(r" ?(?:$|[.,;:!|)\]}(\[]|- |because\b|since\b|overall\b)| [A-Z][a-z]+(?: [A-Za-z]+)? ?[:=]")
_REASON = re.compile(r"^[ ,;-]*(?:because|since)\b|^ ?\((?![0-9+~\u00b1-])[^()]*\)[ .]*$", re.IGNORECASE)
_ASPECTS = (
    "confidence|certainty|uncertainty|accuracy|helpfulness|relevance|clarity|depth|creativity|detail|length|difficulty|safety|style"
    "|coherence|correctness|completeness"
)
ASPECTS = frozenset(_ASPECTS.split("|"))
# A second number that takes the first one's place; an arrow is a colon by now.
_REVISED = re.compile(
    r"^ ?:+ ?[\[(]*[0-9]|\b(?:revis(?:ed|ing|ion)|final(?:ly)?|actually|lowered|raised|chang(?:ed|ing)|correct(?:ed|ion)|adjust(?:ed|ing)"
    r"|updated|reconsidered|reduced|increased|now)\b[^0-9]{0,24}[0-9]",
    re.IGNORECASE,
)
_LABELLED = re.compile(rf"(?:[:=|]|\b(?:{_ASPECTS})(?: is| of)?) ?[\[({{]*$", re.IGNORECASE)


def value_of(found: re.Match[str], line: Line, scale: Scale) -> float | None:
    """The number of a VALUE where it lies on our scale."""
    marks = found["scale"].replace(" ", "")
    if OTHER in marks or (found["unit"] and "star" in found["unit"].lower() and not marks):
        return None
    number = float(found["number"])
    if (not marks and number <= line.beyond) or not scale.lowest <= number <= scale.highest:
        return None
    return number if scale.parts or number.is_integer() else None


def is_whole(rest: str) -> bool:
    """Whether a statement ends where its value does: what follows is another label's, a reason, or has no number, and revises nothing."""
    if not _ENDING.match(rest) or _DOUBT.match(rest) or _REVISED.search(rest) or OTHER in rest:
        return False
    if _REASON.match(rest):
        return True
    return all(_LABELLED.search(rest[max(0, one.start() - 40) : one.start()]) for one in re.finditer(r"[0-9]+(?:\.[0-9]+)?", rest))


def hedged(words: str) -> bool:
    """Whether some words take back, weaken or compare what they say."""
    found = re.findall(r"[a-z]+(?:'[a-z]+)?", words.lower())
    return any(word in HEDGES or word.endswith("n't") for word in found)
