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
# What a judge says of an answer that it does not choose. Where its part of the sentence has one of these, a letter is no vote.
_SPURNED = re.compile(
    r"\b(?:worst|worse|weakest|weaker|poorest|poorer|least|lowest|bottom|inferior|loser|loses?|lost|reject(?:s|ed)?|eliminated?|eliminates"
    r"|discard(?:s|ed)?|dismiss(?:es|ed)?|rule(?:s|d)? out|disqualif(?:y|ies|ied)|fails?|failed|unacceptable|last place)\b",
    re.IGNORECASE,
)
_PART = re.compile(r"[,;.!?]| - |\b(?:so|but|while|whereas|because|since|and|therefore|thus|hence|although|though)\b", re.IGNORECASE)
_DENIED = re.compile(
    r" ?(?:if\b|unless\b|(?:is |was |would |can |does |do |could )?(?:not\b|n't|cannot\b)|(?:is|was|does|would|ca)n't\b)", re.IGNORECASE
)


def named_letter(answer: str, letters: str) -> str | None:
    """The letter in double brackets that an answer decides for: the only one it names, or the last if that is said to be the choice.

    None where a letter is denied, set under a condition or named as the worst, and where several are named and none is said to be
    the choice.
    """
    said = spoken(answer)
    lines = joined(plain(said)) if said is not None else []
    found = [(line, one) for line in lines for one in _LETTER.finditer(line) if one["letter"] in letters]
    if not found:
        return None
    line, last = found[-1]
    left, after = before(line, last.start()), line[last.end() :]
    if _AGAINST.search(left) or _DENIED.match(after) or _SPURNED.search(_PART.split(left)[-1]) or _SPURNED.search(_PART.split(after)[0]):
        return None
    if len({one["letter"] for _, one in found}) == 1:
        return str(last["letter"])
    sentence = last_sentence(left)
    chosen = bool(_CHOICE.search(sentence.strip())) and not hedged(sentence)
    return str(last["letter"]) if chosen and not after.strip(" .!)]") else None
