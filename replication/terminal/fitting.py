"""Text made to fit a width of terminal cells: whole words, and what cannot be shown is made visible.

Lines break at spaces; a word that is alone too wide for its place breaks after a hyphen, slash or underscore between two letters or digits.
A text that must be shortened loses whole words or such parts and ends with an ellipsis; only a part that is too wide keeps its beginning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from sarm.job import printable

ELLIPSIS = "…"
# Not inside a number such as 4e-06.
_ENDS_INSIDE = re.compile(r"(?<=\w[-/_])(?<!\d[eE]-)(?=\w)")


class Part(NamedTuple):
    """A word, or of one that is too wide a part up to a hyphen; `glued` tells that no space stands before it."""

    text: str
    glued: bool


def cleaned(text: str) -> str:
    """One line without control signs, marks of direction and half surrogates, each of which becomes `?`."""
    return printable(" ".join(text.split()))


def parts_of(text: str, width: int = 1) -> list[Part]:
    """The words of a text; those wider than `width` cut after their inner hyphens, slashes and underscores."""
    found = []
    for word in cleaned(text).split():
        parts = [word] if cell_len(word) <= width else [part for part in _ENDS_INSIDE.split(word) if part]
        found += [Part(part, glued=place > 0) for place, part in enumerate(parts)]
    return found


def longest_part(text: str) -> int:
    """Cells of the widest part of a text's words: the least width at which nothing of it is lost."""
    return max((cell_len(part.text) for part in parts_of(text)), default=0)


def wrapped(text: str, width: int, *, most: int | None = None) -> list[str]:
    """The text in lines of at most `width` cells; beyond `most` lines it ends with an ellipsis after a whole word. Never empty."""
    width = max(width, 1)
    lines = _lines(parts_of(text, width), width)
    if most is None or len(lines) <= most:
        return [_joined(line) for line in lines] or [""]
    return [*(_joined(line) for line in lines[: most - 1]), _with_ellipsis(lines[most - 1], width)]


def shortened(text: str, width: int) -> str:
    """The text in one line of at most `width` cells, of whole words."""
    return wrapped(text, width, most=1)[0]


def width_for(text: str, *, lines: int) -> int:
    """The least width at which the text takes at most so many lines and no word is lost."""
    width = longest_part(text)
    while len(wrapped(text, width)) > lines:
        width += 1
    return width


def padded(text: str, width: int, *, right: bool) -> str:
    """The text with spaces up to the width, before it where it stands on the right."""
    spaces = " " * max(width - cell_len(text), 0)
    return spaces + text if right else text + spaces


def _lines(parts: Sequence[Part], width: int) -> list[list[Part]]:
    lines: list[list[Part]] = []
    used = 0
    for part in parts:
        fitting = part if cell_len(part.text) <= width else Part(_beginning(part.text, width), part.glued)
        needed = cell_len(fitting.text) + (not fitting.glued)
        if lines and used + needed <= width:
            lines[-1].append(fitting)
            used += needed
        else:
            lines.append([fitting])
            used = cell_len(fitting.text)
    return lines


def _joined(line: Sequence[Part]) -> str:
    first = "".join(part.text for part in line[:1])
    return first + "".join(part.text if part.glued else f" {part.text}" for part in line[1:])


def _with_ellipsis(line: Sequence[Part], width: int) -> str:
    kept = [Part(part, glued=one.glued if not place else True) for one in line for place, part in enumerate(_ENDS_INSIDE.split(one.text))]
    while len(kept) > 1 and cell_len(_joined(kept)) + 1 > width:
        kept.pop()
    text = _joined(kept)
    if text.endswith(ELLIPSIS):
        return text
    return text + ELLIPSIS if cell_len(text) < width else _beginning(text, width)


def _beginning(word: str, width: int) -> str:
    """What of a word that is too wide stays: its first signs and an ellipsis."""
    if word.endswith(ELLIPSIS) and cell_len(word) <= width:
        return word
    return set_cell_size(word, width - 1).rstrip() + ELLIPSIS if width > 1 else ELLIPSIS
