"""The words that an answer gives under a label."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sarm.judges.grammar.text import spoken

_MARKS = " *_`#>-"
_BULLET = re.compile(r"\s*(?:[-+*\u2022\u00b7]|[0-9]{1,2}[.)])\s")
# A line that begins with a few words and a colon, or is a heading: a label of its own.
_LABEL = re.compile(r"[\s*_`>]*(?:[A-Z][\w'-]*(?: [\w'-]+){0,2}(?: ?[(\[][^()\[\]\n]{0,40}[)\]])?[*_`]* ?[:=]|#+\s)")
_BOLD = re.compile(r"\s*\*\*[^*\n]{1,60}\*\*\s*")


def named_text(answer: str, label: str, *, before: str) -> str | None:
    """What an answer says last under a label, in one line: all its lines up to the next label; None where it says nothing.

    It ends where the label `before` begins with a value. Without one, a blank line ends it unless its items go on. Markup within stays
    as it is.
    """
    said = spoken(answer)
    if said is None:
        return None
    until = re.compile(rf"(?:\n|[*_`]|\b){before}[*_`]* ?[:=][*_`]* *[\[(]?[0-9-]", re.IGNORECASE)
    alone = re.compile(rf"[\s*_`>]*(?:\w+ )?{before}\b(?: is| of)?(?: *[*_`:=(\[-]*[0-9]|[ *_`:]*$)", re.IGNORECASE)
    found = None
    for place in re.finditer(rf"\b{label}[*_`]* ?:[*_`]*", said, re.IGNORECASE):
        tail = said[place.end() :]
        end = until.search(tail)
        text = " ".join(_lines(tail, end.start() if end else None, alone))
        # A line in bold as a whole ends with the marks that stand before its label.
        found = text.removesuffix("**").strip() if text.count("**") % 2 else text
    return found or None


def _lines(tail: str, end: int | None, alone: re.Pattern[str]) -> Iterable[str]:
    """The lines of a text up to the next label, at most to the place `end`."""
    place, blank, labelled, first = 0, False, False, True
    for line in tail.split("\n"):
        cut = line if end is None else line[: max(0, end - place)]
        place += len(line) + 1
        if not cut.strip(_MARKS):
            if end is not None and place > end:
                return
            blank = True
            continue
        chatter = blank and end is None
        is_label = bool(_LABEL.match(line) and not _BULLET.match(line))
        if first:
            # Where it stands below its label and begins with one, its own lines have labels.
            labelled = is_label and blank
        elif (is_label and not labelled) or alone.match(line) or _BOLD.fullmatch(line) or (chatter and not _BULLET.match(line)):
            return
        yield cut.strip() if first else cut.strip().lstrip("> ")
        first, blank = False, False
