"""The words that an answer gives under a label."""

from __future__ import annotations

import re

from sarm.judges.grammar.text import spoken

_MARKS = " *_`#"


def named_text(answer: str, label: str, *, before: str) -> str | None:
    """What an answer says last under a label: the rest of that line, or the first line after it; None where it says nothing.

    It ends where the label `before` begins with a value. Markup within stays as it is.
    """
    said = spoken(answer)
    if said is None:
        return None
    until = re.compile(rf"(?:\n|[*_`]|\b){before}[*_`]* ?[:=][*_`]* *[\[(]?[0-9-]", re.IGNORECASE)
    found = None
    for place in re.finditer(rf"\b{label}[*_`]* ?:[*_`]*", said, re.IGNORECASE):
        tail = said[place.end() :]
        end = until.search(tail)
        lines = (tail[: end.start()] if end else tail).split("\n")
        text = next((line.strip() for line in lines if line.strip(_MARKS)), "")
        # A line in bold as a whole ends with the marks that stand before its label.
        found = text.removesuffix("**").strip() if text.count("**") % 2 else text
    return found or None
