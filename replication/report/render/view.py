"""A report as strings in their final form: what every format of a table shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import stdev

from replication.frozen import Frozen
from replication.report.cells import Cell, Listing, Report, Row, Table, Verdict

DASH = "—"
SHORT: dict[Verdict, str] = {
    "MATCH": "MATCH",
    "EQUIVALENT": "EQUIV",
    "CONSISTENT": "CONSIST",
    "INCONCLUSIVE": "INCONCL",
    "DIFFERS": "DIFFERS",
    "DEFECTIVE": "DEFECT",
    "MISSING": "MISSING",
    "NOT COMPARABLE": "NOT COMP",
    "PUBLISHED ONLY": "",
}
MEANING: dict[Verdict, str] = {
    "MATCH": "same weights claimed, counts within the noise budget",
    "EQUIVALENT": "retrained, inside the margin by two one-sided tests",
    "CONSISTENT": "the published value lies in the 95 % prediction interval of our seeds",
    "INCONCLUSIVE": "neither equivalence nor difference shown",
    "DIFFERS": "the confidence interval of the difference excludes the margin",
    "DEFECTIVE": "the published cell fails the audit",
    "MISSING": "not measured",
    "NOT COMPARABLE": "other scale, protocol or data than the reference",
    "PUBLISHED ONLY": "quoted, not measured here",
}
OVER_ITEMS = "one standard error over items"
LONG_TEXT = 30
WITHOUT_FOOTNOTE: tuple[Verdict, ...] = ("MATCH", "EQUIVALENT", "CONSISTENT", "PUBLISHED ONLY")


class CellView(Frozen):
    """A place of a table, as text."""

    ours: str
    spread: str
    seeds: str
    published: str
    reference: str
    verdict: Verdict
    mark: str
    reason: str


class RowView(Frozen):
    """A line of a table, as text; `lines` is the same row as (source, texts) for formats without structure in a cell."""

    name: str
    label: str
    size: str
    group: str
    starts_group: bool
    measured: bool
    note: str
    cells: tuple[CellView, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


class TableView(Frozen):
    """A titled block, as text."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]
    items: str
    seeded: str
    footnotes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


class ListingView(Frozen):
    """A block of text, with whether each column stands on the right, and LaTeX's column types."""

    listing: Listing
    right: tuple[bool, ...]
    tex_columns: str


class ReportView(Frozen):
    """All that a template needs."""

    report: Report
    tables: tuple[TableView, ...]
    listings: tuple[ListingView, ...]
    legend: tuple[tuple[Verdict, str], ...]
    seeds: str
    percent: str


def view_of(report: Report) -> ReportView:
    """The strings of a report: numbers with the digits of the published value, footnotes numbered by first use."""
    used = {cell.verdict for table in report.tables for row in table.rows for cell in row.cells}
    tables = tuple(table_view(table, common=report.why_not_comparable) for table in report.tables)
    seeded = next((table.seeded for table in tables if table.seeded), "")
    return ReportView(
        report=report,
        tables=tables,
        listings=tuple(_listing_view(listing) for listing in report.listings),
        legend=tuple((verdict, meaning) for verdict, meaning in MEANING.items() if verdict in used),
        seeds=", ".join(str(seed) for seed in report.seeds) or "none",
        percent=f"percent; {seeded}" if seeded else f"percent ± {OVER_ITEMS}",
    )


def decimals_of(cell: Cell) -> int:
    """The decimals of the published value; one where there is none."""
    return len(cell.published.partition(".")[2]) if cell.published else 1


def table_view(table: Table, *, common: str) -> TableView:
    """The strings of one table; a reason that is `common` to the report needs no footnote."""
    numbers: dict[str, str] = {}
    rows: list[RowView] = []
    previous = ""
    for row in table.rows:
        starts_group = bool(row.group) and row.group != previous
        rows.append(_row_view(row, columns=table.columns, numbers=numbers, starts_group=starts_group, common=common))
        previous = row.group
    return TableView(
        name=table.name,
        title=table.title,
        columns=table.columns,
        rows=tuple(rows),
        items=_items(table),
        seeded=_seeded(rows),
        footnotes=tuple((number, reason) for reason, number in numbers.items()),
        notes=table.notes,
    )


def _listing_view(listing: Listing) -> ListingView:
    right = tuple(column in listing.numeric for column in listing.columns)
    longest = [max((len(row[place]) for row in listing.rows), default=0) for place in range(len(listing.columns))]
    long = sum(length for length in longest if length > LONG_TEXT) or 1
    # Long columns share the line by their length; what a paragraph column needs at least is an eighth.
    types = [
        "r" if one else f"p{{{max(0.125, 0.75 * length / long):.3f}\\linewidth}}" if length > LONG_TEXT else "l"
        for one, length in zip(right, longest, strict=True)
    ]
    return ListingView(listing=listing, right=right, tex_columns="".join(types))


def cells_of(row: Row, columns: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cells of a row in the order of the columns; a column that the row lacks is a missing cell."""
    by_column = {cell.column: cell for cell in row.cells}
    absent = "the row has no such cell"
    return tuple(by_column.get(column) or Cell(column=column, verdict="MISSING", reason=absent) for column in columns)


def _row_view(row: Row, *, columns: tuple[str, ...], numbers: dict[str, str], starts_group: bool, common: str) -> RowView:
    placed = cells_of(row, columns)
    cells = tuple(_cell_view(cell, numbers=numbers, common=common) for cell in placed)
    # A row that should have been measured and was not still shows its dashes.
    expected = any(cell.ours is not None or cell.verdict != "PUBLISHED ONLY" for cell in placed)
    lines: list[tuple[str, tuple[str, ...]]] = []
    if expected:
        lines.append(("ours", tuple(_joined(cell) for cell in cells)))
    if any(cell.published is not None for cell in placed):
        lines.append(("paper", tuple(cell.published for cell in cells)))
    if any(cell.reference is not None for cell in placed):
        lines.append(("board", tuple(cell.reference for cell in cells)))
    if expected:
        lines.append(("verdict", tuple(cell.verdict + (f" ({cell.mark})" if cell.mark and cell.ours != DASH else "") for cell in cells)))
    return RowView(
        name=row.name, label=row.label, size=row.size, group=row.group, starts_group=starts_group, measured=expected,
        note=row.note, cells=cells, lines=tuple(lines),
    )  # fmt: skip


def _joined(cell: CellView) -> str:
    if cell.ours == DASH:
        return f"{DASH} ({cell.mark})" if cell.mark else DASH
    return (f"{cell.ours} ± {cell.spread}" if cell.spread else cell.ours) + (f" (n {cell.seeds})" if cell.seeds else "")


def _cell_view(cell: Cell, *, numbers: dict[str, str], common: str) -> CellView:
    mark = ""
    if cell.reason and cell.verdict not in WITHOUT_FOOTNOTE and cell.reason != common:
        mark = numbers.setdefault(cell.reason, str(len(numbers) + 1))
    decimals = decimals_of(cell)
    ours, spread, seeds = DASH, "", ""
    if cell.ours is not None:
        ours = f"{cell.ours.value:.{decimals}f}"
        several = len(cell.ours.per_seed) > 1
        error = stdev(cell.ours.per_seed) if several else cell.ours.standard_error
        spread = "" if error is None else f"{error:.{max(decimals, 1)}f}"
        seeds = str(len(cell.ours.per_seed)) if several else ""
    return CellView(
        ours=ours, spread=spread, seeds=seeds, published=cell.published or DASH, reference=cell.reference or DASH, verdict=cell.verdict,
        mark=mark, reason=cell.reason,
    )  # fmt: skip


def _seeded(rows: Sequence[RowView]) -> str:
    """What stands behind ± where there are several seeds; empty where there are none."""
    counts = sorted({cell.seeds for row in rows for cell in row.cells if cell.seeds}, key=int)
    shown = " or ".join(counts)
    return f"with (n {shown}) the mean over {shown} seeds ± their standard deviation, elsewhere ± {OVER_ITEMS}" if counts else ""


def _items(table: Table) -> str:
    """The item counts of each column, once; where rows differ, all values that occur."""
    parts = []
    for column in table.columns:
        sizes = sorted({cell.ours.n for row in table.rows for cell in row.cells if cell.column == column and cell.ours is not None})
        if sizes:
            parts.append(f"{column} {' or '.join(str(size) for size in sizes)}")
    return ", ".join(parts)


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "—": "---", "–": "--", "−": "$-$", "×": r"$\times$",
    "≤": r"$\leq$", "≥": r"$\geq$", "<": r"\textless{}", ">": r"\textgreater{}", "·": r"$\cdot$", "→": r"$\rightarrow$",
}  # fmt: skip
MARKDOWN = re.compile(r"([\\|*_`<>\[\]])")


def latex(text: str) -> str:
    """Text as LaTeX, every special character escaped."""
    return "".join(LATEX.get(character, character) for character in text)


def markdown(text: str) -> str:
    """Text for a Markdown table cell or paragraph: no markup, no cell border, one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))
