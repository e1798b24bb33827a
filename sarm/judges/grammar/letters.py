"""The letter in double brackets that an answer decides for."""

from __future__ import annotations

import re

from sarm.judges.grammar.labels import before, last_sentence
from sarm.judges.grammar.text import joined, plain, spoken
from sarm.judges.grammar.values import hedged

_LETTER = re.compile(r"\[\[ ?(?P<letter>[A-Z]) ?\]\]")
_CHOICE = re.compile(
    r"\b(?:verdict|choice|winner|decision|conclusion|judge?ment|answer|best|choose|pick|prefer|it is)"
    r"(?: (?:is|goes to|would be|for|the|assistant|response|answer|therefore))*[ :=]*$|^(?:so|thus|hence|therefore|finally|final)?[ ,:]*$",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"\b(?:not|n't|never|than|over|beats?|instead of|rather than|neither|nor|against|cannot (?:choose|be))[ :]*$", re.IGNORECASE
)
_DENIED = re.compile(
    r" ?(?:if\b|unless\b|(?:is |was |would |can |does |do |could )?(?:not\b|n't|cannot\b)|(?:is|was|does|would|ca)n't\b)", re.IGNORECASE
)


def named_letter(answer: str, letters: str) -> str | None:
    """The letter in double brackets that an answer decides for: the only one it names, or the last if that is said to be the choice.

    None where a letter is denied or set under a condition, and where several are named and none is said to be the choice.
    """
    said = spoken(answer)
    lines = joined(plain(said)) if said is not None else []
    found = [(line, one) for line in lines for one in _LETTER.finditer(line) if one["letter"] in letters]
    if not found:
        return None
    line, last = found[-1]
    left, after = before(line, last.start()), line[last.end() :]
    if _AGAINST.search(left) or _DENIED.match(after):
        return None
    if len({one["letter"] for _, one in found}) == 1:
        return str(last["letter"])
    sentence = last_sentence(left)
    chosen = bool(_CHOICE.search(sentence.strip())) and not hedged(sentence)
    return str(last["letter"]) if chosen and not after.strip(" .!)]") else None
