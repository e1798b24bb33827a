"""A table of accuracies on a terminal: our rows first, each with the paper's below it, then the published ones in a line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

from rich.text import Text

from replication.report.cells import Table, Verdict
from replication.report.render.terminal.short_names import short_head, short_name
from replication.report.render.view import DASH, SHORT, CellView, RowView, TableView
from replication.terminal.fitting import width_for
from replication.terminal.grid import Column, GridRow, Piece, laid, width_of

T = TypeVar("T", Column, Piece)
Spread = Literal["all", "first", "none"]
STYLES: dict[Verdict, str] = {
    "MATCH": "green",
    "EQUIVALENT": "green",
    "CONSISTENT": "cyan",
    "INCONCLUSIVE": "yellow",
    "DIFFERS": "bold red",
    "DEFECTIVE": "magenta",
    "MISSING": "dim",
    "NOT COMPARABLE": "dim",
    "PUBLISHED ONLY": "",
}
# Before a number where the verdicts of its row differ.
MARKS: dict[Verdict, str] = {
    "MATCH": "=",
    "EQUIVALENT": "≈",
    "CONSISTENT": "~",
    "INCONCLUSIVE": "?",
    "DIFFERS": "≠",
    "DEFECTIVE": "!",
    "MISSING": "",
    "NOT COMPARABLE": "×",
    "PUBLISHED ONLY": "",
}
BY_CELL = "by cell"
LEAST_NAME = 14


class Form(NamedTuple):
    """One way to write the table; those with more in it come first in `FORMS`."""

    spread: Spread
    full_names: bool = False
    full_heads: bool = False
    gap: int = 1
    name_lines: int = 1
    verdict_first: bool = False


class AccuracyGrid(NamedTuple):
    """The lines, which columns have no room for ± or for anything, and the verdicts and marks that a legend must tell."""

    lines: tuple[Text, ...]
    without_spread: tuple[str, ...]
    left_out: tuple[str, ...]
    verdicts: frozenset[Verdict]
    marked: bool


SPREADS: tuple[Spread, ...] = ("all", "first", "none")
FORMS = (
    *(
        form
        for spread in SPREADS
        for form in (
            Form(spread, full_names=True, full_heads=True, gap=2),
            Form(spread, full_heads=True, gap=2),
            Form(spread, gap=2),
            Form(spread),
            Form(spread, name_lines=2),
        )
    ),
    # No room for all columns: the last ones are left out, and the verdict is not one of them.
    Form("none", verdict_first=True),
)


def accuracy_grid(table: Table, view: TableView, *, width: int, groups: bool) -> AccuracyGrid:
    """The table in `width` cells: with ± in all columns where there is room, else in the first, else in none.

    `groups` tells whether rows stand below the heads of their groups.
    """
    for form in FORMS:
        columns, rows = _columns(view, form), _rows(table, view, form, groups=groups)
        if _fits(columns, rows, form, width=width):
            break
    found = laid(columns, rows, width=width, gap=form.gap)
    spread = [place for place in range(len(view.columns)) if any(row.cells[place].spread for row in view.rows)]
    lost = {"all": [], "first": [one for one in spread if one], "none": spread}[form.spread]
    judged = [row for row in view.rows if row.measured]
    return AccuracyGrid(
        lines=found.lines,
        without_spread=tuple(view.columns[place] for place in lost),
        left_out=found.left_out,
        verdicts=frozenset(cell.verdict for row in judged for cell in row.cells if cell.verdict != "PUBLISHED ONLY"),
        marked=any(_mixed(row) for row in judged),
    )


def _fits(columns: Sequence[Column], rows: Sequence[GridRow], form: Form, *, width: int) -> bool:
    if form.name_lines == 1:
        return width_of(columns, rows, gap=form.gap) <= width
    names = [row[0].text for row in rows if len(row) > 1]
    name = max([LEAST_NAME, *(width_for(one, lines=form.name_lines) for one in names)])
    rest = [row[1:] for row in rows if len(row) > 1]
    return name + form.gap + width_of(columns[1:], [row for row in rest if len(row) > 1], gap=form.gap) <= width


def _columns(view: TableView, form: Form) -> list[Column]:
    heads = view.columns if form.full_heads else tuple(map(short_head, view.columns))
    numbers = [Column(head, right=True, breaks=False) for head in heads]
    return _placed(Column("model"), numbers, Column("verdict", breaks=False), view, form)


def _placed(first: T, numbers: Sequence[T], verdict: T, view: TableView, form: Form) -> list[T]:
    """What stands beside each other in a line; a table without a row of ours has no verdicts."""
    line = list(numbers)
    if any(row.measured for row in view.rows):
        line.insert(0 if form.verdict_first else len(line), verdict)
    line.insert(0, first)
    return line


def _rows(table: Table, view: TableView, form: Form, *, groups: bool) -> list[GridRow]:
    rows: list[GridRow] = []
    items = _items(table)
    if any(items):
        rows.append(_placed(Piece("items", "dim"), [Piece(one, "dim") for one in items], Piece(), view, form))
    for measured in (True, False):
        for group, members in _groups(row for row in view.rows if row.measured == measured):
            rows += [[Piece(group, "italic")]] if group and groups else []
            for row in members:
                rows += _own_rows(row, view, form)
    return rows


def _groups(rows: Iterable[RowView]) -> list[tuple[str, list[RowView]]]:
    """Rows by their group, groups in the order of their first row."""
    found: dict[str, list[RowView]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return list(found.items())


def _own_rows(row: RowView, view: TableView, form: Form) -> list[GridRow]:
    name = f"{row.label} {row.size}".strip() if form.full_names else short_name(row.label)
    printed = [Piece(cell.published) for cell in row.cells]
    if not row.measured:
        return [_placed(Piece(name), printed, Piece(), view, form)]
    mixed = _mixed(row)
    ours = [_ours(cell, shows=form.spread == "all" or (form.spread == "first" and not place), mixed=mixed)
            for place, cell in enumerate(row.cells)]  # fmt: skip
    verdicts = _verdicts(row) or {"MISSING"}
    said = Piece(BY_CELL) if mixed else Piece(SHORT[next(iter(verdicts))], STYLES[next(iter(verdicts))])
    lines: list[GridRow] = [_placed(Piece(name, "bold"), ours, said, view, form)]
    if any(cell.published != DASH for cell in row.cells):
        lines.append(_placed(Piece("· paper", "dim"), printed, Piece(), view, form))
    return lines


def _verdicts(row: RowView) -> set[Verdict]:
    """The verdicts of a row's numbers; a missing one is a dash and says so itself."""
    return {cell.verdict for cell in row.cells if cell.verdict not in ("PUBLISHED ONLY", "MISSING")}


def _mixed(row: RowView) -> bool:
    return len(_verdicts(row)) > 1


def _ours(cell: CellView, *, shows: bool, mixed: bool) -> Piece:
    spread = f"±{cell.spread}" if cell.spread and shows else ""
    mark = MARKS[cell.verdict] if mixed else ""
    return Piece(f"{mark}{cell.ours}{spread}", STYLES[cell.verdict] if mixed else "bold")


def _items(table: Table) -> list[str]:
    """How many items lie behind each column; the smallest and the largest number where rows differ."""
    found = []
    for column in table.columns:
        counts = [cell.ours.n for row in table.rows for cell in row.cells if cell.column == column and cell.ours is not None]
        least, most = (min(counts), max(counts)) if counts else (0, 0)
        found.append("" if not counts else f"{most}" if least == most else f"{least}–{most}")
    return found

