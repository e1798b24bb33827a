"""A report on a terminal with all that is in it: for each row ours, the paper's, the leaderboard's and the verdict below each other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from replication.report.cells import Report
from replication.report.render.terminal.accuracy_grid import STYLES
from replication.report.render.view import DASH, SHORT, CellView, ListingView, ReportView, TableView, view_of
from replication.terminal.fitting import wrapped
from replication.terminal.grid import Column, GridRow, Piece, laid_whole


def whole_view(report: Report, *, width: int) -> Sequence[Text]:
    """The lines, none wider than `width`; columns for which there is no room stand in blocks below."""
    view = view_of(report)
    lines = [
        *_said(report.title, width, "bold"),
        *_said(f"profile {report.profile}, protocol {report.protocol}, seeds {view.seeds}", width, "bold"),
    ]
    if not report.comparable:
        lines += _said(f"Not comparable with the paper: {report.why_not_comparable}", width, "yellow")
    for table in view.tables:
        lines += [Text(""), *_said(table.title, width, "bold"), *_table(table, width), *_below(table, width)]
    for one in view.listings:
        lines += [Text(""), *_said(one.listing.title, width, "bold"), *_listing(one, width)]
        lines += [line for note in one.listing.notes for line in _said(note, width)]
    return [*lines, *_footer(view, width)]


def _said(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(line, style=style) for line in wrapped(text, width)]


def _entry(text: str, width: int) -> list[Text]:
    first, *others = wrapped(text, width - 2)
    return [Text(f"- {first}"), *(Text(f"  {line}") for line in others)]


def _table(table: TableView, width: int) -> tuple[Text, ...]:
    columns = [Column("model", least=len("· verdict")), *(Column(column, right=True) for column in table.columns)]
    rows: list[GridRow] = []
    for row in table.rows:
        if row.starts_group:
            rows.append([Piece(row.group, "italic")])
        label = f"{row.label} {row.size}".strip()
        for place, (source, texts) in enumerate(row.lines):
            fields = [_piece(source, text, cell) for text, cell in zip(texts, row.cells, strict=True)]
            # A row of published numbers alone stands in one line; the others say whose each line is.
            name = label if place == 0 else f"· {source}"
            rows.append([Piece(name, ("bold" if row.measured else "") if place == 0 else "dim"), *fields])
    return laid_whole(columns, rows, width=width)


def _listing(one: ListingView, width: int) -> tuple[Text, ...]:
    columns = [Column(column, right=right, breaks=not right) for column, right in zip(one.listing.columns, one.right, strict=True)]
    return laid_whole(columns, [[Piece(text) for text in row] for row in one.listing.rows], width=width)


def _piece(source: str, text: str, cell: CellView) -> Piece:
    if source == "verdict":
        return Piece(SHORT[cell.verdict] + (f" {cell.mark}" if cell.mark and cell.ours != DASH else ""), STYLES[cell.verdict])
    if source == "ours":
        # The number of seeds stands below the table.
        return Piece(text.partition(" (n ")[0].replace(" ± ", "±").replace(f"{DASH} (", f"{DASH} ").rstrip(")"), "bold")
    return Piece(text, "dim" if source == "board" else "")


def _below(table: TableView, width: int) -> list[Text]:
    lines = [f"Items: {table.items}"] if table.items else []
    lines += [f"±: {table.seeded}"] if table.seeded else []
    lines += [f"{number}  {reason}" for number, reason in table.footnotes]
    lines += [f"{row.label}: {row.note}" for row in table.rows if row.note]
    lines += list(table.notes)
    return [one for line in lines for one in _said(line, width)]


def _footer(view: ReportView, width: int) -> list[Text]:
    report = view.report
    lines = [Text("")]
    for verdict, meaning in view.legend:
        lines += _said(f"{SHORT[verdict]}: {meaning}", width, STYLES[verdict]) if SHORT[verdict] else []
    for title, entries in (("Notes", report.notes), ("Deviations from the paper", report.deviations)):
        if entries:
            lines += [Text(""), Text(title, style="bold"), *(line for entry in entries for line in _entry(entry, width))]
    if report.provenance:
        codes = ", ".join(dict.fromkeys(one.code for one in report.provenance))
        lines += [Text(""), *_said(f"{len(report.provenance)} artifacts, code {codes}", width, "dim")]
    if report.computed_with:
        lines += _said(f"Computed with: {report.computed_with}", width, "dim")
    return lines
