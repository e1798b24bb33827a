"""The value that an answer names last, under a label or at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sarm.judges.grammar.labels import NEAR, Label, last_sentence, named
from sarm.judges.grammar.scales import OTHER, OWN, Line, Scale, scaled
from sarm.judges.grammar.text import joined, plain, spoken
from sarm.judges.grammar.values import ASPECTS, VALUE, hedged, value_of

_OBJECT = (
    "it|this|that|the|a|an|response|answer|completion|reply|output|assistant|assistant's|ai|model|model's|as|at|with|of|overall|solid|strong"
    "|full|rating|score|mark|grade|to|its|above|final|user"
)
_CUE = re.compile(
    rf"\b(?:(?:i|we)(?:'d|'ll| would| will| shall)?(?: [a-z]+ly)? (?:rate|score|grade|give|assign|award|say)"
    rf"|(?:deserve|merit|earn|warrant)s?(?: only| just)?)(?: (?:{_OBJECT}))*[ \[({{]*$",
    re.IGNORECASE,
)
# Words that may stand before a number that else stands alone.
_LEAD = frozenset(("overall", "so", "thus", "therefore", "final", "finally", "verdict", "total", "my", "the", "judgment", "judgement"))
# An answer that is nothing else.
_SOLE = re.compile(r"^(?:the |my )?(?:final )?answer(?: is|:)$", re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?:[0-9]|\b(?:no|nr|fig|eq|sec|ch|ex|vs|vol|art|pp?|approx|e\.g|i\.e|cf|st))\.$", re.IGNORECASE)
# A later line that begins by taking back what was said, and names a number.
_TAKEN_BACK = re.compile(
    r"^\W*(?:actually|correction|corrected|wait|hold on|revis(?:ed|ion|ing)|on (?:second thoughts?|reflection|reconsideration))\b.*[0-9]",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[ .!\])}]*$")


class Ending(NamedTuple):
    """A value at the end of an answer; `said` where a sentence gives it, else it stands alone."""

    value: float | None
    said: bool


def named_value(answer: str, label: Label, scale: Scale, *, alone: bool) -> float | None:
    """The value that an answer names last under a label; with `alone` also one that stands, or is said, at its end.

    None where there is none, where the last one cannot be read or a later line takes it back, or where a number alone at the end
    contradicts a label.
    """
    said = spoken(answer)
    lines = scaled(joined(plain(said)), scale) if said is not None else []
    if not lines:
        return None
    statements = list(named(lines, label, scale))
    ending = _ending(lines, scale) if alone else None
    if not statements:
        return ending.value if ending else None
    last = statements[-1]
    if ending is not None and ending.said and last.line < len(lines) - 1:
        return ending.value
    if any(_TAKEN_BACK.match(line.text) for line in lines[last.line + 1 :]):
        return None
    return last.value if ending is None or last.line == len(lines) - 1 or ending.value == last.value else None


def _ending(lines: Sequence[Line], scale: Scale) -> Ending | None:
    last = lines[-1]
    found = next((one for one in VALUE.finditer(last.text, max(0, len(last.text) - NEAR)) if _CLOSING.match(last.text, one.end())), None)
    if found is None:
        return None
    before = last.text[: found.start()].rstrip()
    sentence, value = last_sentence(before), value_of(found, last, scale)
    if not re.search(rf"[0-9{OTHER}]", sentence) and not hedged(sentence) and _CUE.search(sentence):
        return Ending(value, said=True)
    if before and not _leads(sentence) and not (len(lines) == 1 and _SOLE.match(before)):
        return None
    if _ABBREVIATION.search(before[-NEAR:]) or (not before and len(lines) > 1 and _stands_under_another(lines[-2].text)):
        return None
    return Ending(value, said=False)


def _leads(sentence: str) -> bool:
    """Whether nothing but words that announce an end, or our scale, stand before a number."""
    return all(word.lower() in _LEAD for word in re.split(rf"[ ,:{OWN}]+", sentence) if word)


def _stands_under_another(line: str) -> bool:
    """Whether a number alone in its line may belong to the line before: to another number, or to an aspect."""
    words = re.findall(r"[a-z]+", line[-NEAR:].lower())
    return VALUE.fullmatch(line) is not None or (bool(words) and words[-1] in ASPECTS)
