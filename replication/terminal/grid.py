"""Columns of text on a terminal, laid into a width: lines break between words, and what does not fit is named, never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from replication.terminal.fitting import cleaned, longest_part, padded, wrapped

# A word beyond this many cells does not widen its column.
WIDEST_WORD = 40
# What a column may lack at most to be served before others.
SMALL = 14
RULE = "─"


class Piece(NamedTuple):
    """What stands in one place, and how."""

    text: str = ""
    style: str = ""


class Column(NamedTuple):
    """A column: its head, whether it stands on the right, whether its cells may break into lines, and how narrow it may become."""

    head: str
    right: bool = False
    breaks: bool = True
    least: int = 1


class Laid(NamedTuple):
    """Lines as wide as allowed, and the heads of columns for which there was no room."""

    lines: tuple[Text, ...]
    left_out: tuple[str, ...]


# A row with a single piece is a head of a group and may run across all columns.
GridRow = Sequence[Piece]


def width_of(columns: Sequence[Column], rows: Sequence[GridRow], *, gap: int) -> int:
    """Cells that the grid takes where nothing breaks."""
    return sum(_natural(columns, rows, place) for place in range(len(columns))) + gap * (len(columns) - 1)


def laid(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int, gap: int = 2, most: int | None = None) -> Laid:
    """The grid in `width` cells, each place in at most `most` lines; the last columns are left out where there is no room for all."""
    gap = _gap(columns, rows, width=width, widest=gap)
    count = _fitting(columns, rows, width=width, gap=gap, first=0)
    shown = [row if len(row) == 1 else row[:count] for row in rows]
    lines = _block(columns[:count], shown, width=width, gap=gap, most=most)
    return Laid(lines, tuple(cleaned(column.head) for column in columns[count:]))


def laid_whole(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int) -> tuple[Text, ...]:
    """The whole grid in `width` cells: columns for which there is no room follow in further blocks, each with the first column."""
    gap = _gap(columns, rows, width=width, widest=2)
    lines: list[Text] = []
    start = 1
    while start < len(columns) or not lines:
        end = _fitting(columns, rows, width=width, gap=gap, first=start)
        places = [0, *range(start, end)]
        block = [row if len(row) == 1 else [row[place] for place in places] for row in rows]
        lines += [*([Text("")] if lines else []), *_block([columns[place] for place in places], block, width=width, gap=gap, most=None)]
        start = max(end, start + 1)
    return tuple(lines)


def _gap(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int, widest: int) -> int:
    """Cells between columns: as many as wished, one where that saves breaking lines or leaving columns out."""
    if width_of(columns, rows, gap=widest) <= width:
        return widest
    whole = _fitting(columns, rows, width=width, gap=widest, first=0) == len(columns)
    return widest if whole and width_of(columns, rows, gap=1) > width else 1


def _texts(columns: Sequence[Column], rows: Sequence[GridRow], place: int) -> list[str]:
    return [cleaned(row[place].text) for row in rows if len(row) > 1 or len(columns) == 1]


def _natural(columns: Sequence[Column], rows: Sequence[GridRow], place: int) -> int:
    return max([cell_len(cleaned(columns[place].head)), *map(cell_len, _texts(columns, rows, place))])


def _least(columns: Sequence[Column], rows: Sequence[GridRow], place: int) -> int:
    """The least width of a column: that of its widest word; of numbers, that of the widest cell."""
    texts = _texts(columns, rows, place)
    cells = [longest_part(text) for text in texts] if columns[place].breaks else [cell_len(text) for text in texts]
    return min(max([longest_part(columns[place].head), *cells, columns[place].least]), WIDEST_WORD)


def _fitting(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int, gap: int, first: int) -> int:
    """The place after the last column that fits beside the first one and those from `first` on; at least one is taken."""
    used = _least(columns, rows, 0)
    end = max(first, 1)
    while end < len(columns):
        used += gap + _least(columns, rows, end)
        if used > width and end > first:
            break
        end += 1
    return end


def _block(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int, gap: int, most: int | None) -> tuple[Text, ...]:
    widths = _widths(columns, rows, width=width, gap=gap)
    heads = [wrapped(column.head, one) for column, one in zip(columns, widths, strict=True)]
    height = max(len(one) for one in heads)
    # Heads stand at the bottom, near their numbers.
    heads = [[""] * (height - len(one)) + one for one in heads]
    lines = _lines(heads, ["bold"] * len(columns), columns, widths, gap)
    lines.append(Text(RULE * (sum(widths) + gap * (len(widths) - 1)), style="dim"))
    for row in rows:
        if len(row) == 1 and len(columns) > 1:
            lines += [Text(line, style=row[0].style) for line in wrapped(row[0].text, width, most=most)]
            continue
        cells = [wrapped(piece.text, one, most=most) for piece, one in zip(row, widths, strict=True)]
        lines += _lines(cells, [piece.style for piece in row], columns, widths, gap)
    return tuple(lines)


def _widths(columns: Sequence[Column], rows: Sequence[GridRow], *, width: int, gap: int) -> list[int]:
    """Each column as wide as it must be; what is left goes where most is missing."""
    places = range(len(columns))
    widths = [_least(columns, rows, place) for place in places]
    free = width - gap * (len(columns) - 1)
    while sum(widths) > free and max(widths) > 1:
        widths[max(places, key=widths.__getitem__)] -= 1
    free -= sum(widths)
    # First what costs little, then long texts, of which the longest lacks most; heads in one line come last.
    cells = [max([0, *map(cell_len, _texts(columns, rows, place))]) for place in places]
    small = [one if one - width <= SMALL else 0 for one, width in zip(cells, widths, strict=True)]
    for wanted in (small, cells, [_natural(columns, rows, place) for place in places]):
        while free > 0:
            place = max(places, key=lambda one: wanted[one] - widths[one])
            if widths[place] >= wanted[place]:
                break
            widths[place] += 1
            free -= 1
    return widths


def _lines(
    cells: Sequence[Sequence[str]], styles: Sequence[str], columns: Sequence[Column], widths: Sequence[int], gap: int
) -> list[Text]:  # fmt: skip
    lines = []
    for number in range(max(len(one) for one in cells)):
        line = Text()
        for place, (texts, style) in enumerate(zip(cells, styles, strict=True)):
            text = texts[number] if number < len(texts) else ""
            line.append(" " * gap if place else "")
            line.append(padded(text, widths[place], right=columns[place].right), style=style)
        line.rstrip()
        lines.append(line)
    return lines
