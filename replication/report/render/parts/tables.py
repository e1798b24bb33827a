"""The tables: sortable, and each measured cell opens to its n, interval, rule, artifacts and command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from replication.frozen import Frozen
from replication.report.cells import Cell, Report, Row, Table
from replication.report.measurements import items_interval
from replication.report.render.parts.addresses import address, titled
from replication.report.render.parts.front import counted
from replication.report.render.sections import Section, filled
from replication.report.render.view import MEANING, CellView, ReportView, RowView, TableView, cells_of, decimals_of, view_of
from replication.report.statistics import mean_over_seeds

# Experiments whose command takes --rows, for which a cell's command names its row.
WITHOUT_ROWS = ("ablation", "sweep")
# A listing with more rows is closed at first.
LONG_LISTING = 12


class Fact(Frozen):
    """A line of an opened cell."""

    name: str
    text: str


class Place(Frozen):
    """A cell in the page: its texts, what it is sorted by, and whether it opens (not where it is only quoted)."""

    view: CellView
    sort: str
    opens: bool


class Line(Frozen):
    """A row in the page."""

    view: RowView
    places: tuple[Place, ...]


class Facts(Frozen):
    """What the cells of a table open to, each text once: a cell is a list of places in `texts`, name and text by turns."""

    texts: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]


class Block(Frozen):
    """A table in the page; `facts` has an entry for each cell that opens, row by row."""

    address: str
    view: TableView
    lines: tuple[Line, ...]
    counts: str
    facts: Facts


class Part(Frozen):
    """A report in the page."""

    address: str
    title: str
    view: ReportView
    blocks: tuple[Block, ...]
    long: tuple[bool, ...]


def tables(reports: Sequence[Report]) -> Section:
    """All reports with their tables and listings."""
    return Section(anchor="tables", title="Tables", html=filled("tables", parts=[_part(one) for one in reports], meaning=MEANING))


def _part(report: Report) -> Part:
    view = view_of(report)
    blocks = [_block(report, table, shown) for table, shown in zip(report.tables, view.tables, strict=True)]
    long = tuple(len(listing.rows) > LONG_LISTING for listing in report.listings)
    return Part(address=address(report), title=titled(report), view=view, blocks=tuple(blocks), long=long)


def _block(report: Report, table: Table, view: TableView) -> Block:
    lines, opened = [], []
    for row, shown in zip(table.rows, view.rows, strict=True):
        cells = cells_of(row, table.columns)
        lines.append(Line(view=shown, places=tuple(_place(cell, one) for cell, one in zip(cells, shown.cells, strict=True))))
        opened += [tuple(facts_of(report, table, row, cell)) for cell in cells if cell.verdict != "PUBLISHED ONLY"]
    return Block(
        address=f"{address(report)}-{table.name}", view=view, lines=tuple(lines), facts=_each_once(opened),
        counts=counted([cell.verdict for row in table.rows for cell in row.cells]),
    )  # fmt: skip


def _place(cell: Cell, view: CellView) -> Place:
    value = f"{cell.ours.value:.6g}" if cell.ours is not None else cell.published or ""
    return Place(view=view, sort=value, opens=cell.verdict != "PUBLISHED ONLY")


def _each_once(opened: Sequence[Sequence[Fact]]) -> Facts:
    """Rules, reasons, commands and artifacts are those of many cells: a page of the paper's size holds them once."""
    texts: dict[str, int] = {}
    cells = tuple(
        tuple(texts.setdefault(text, len(texts)) for fact in facts for text in (fact.name, fact.text)) for facts in opened
    )  # fmt: skip
    return Facts(texts=tuple(texts), cells=cells)


def facts_of(report: Report, table: Table, row: Row, cell: Cell) -> Iterator[Fact]:
    """What is known of a cell, line by line."""
    yield Fact(name="verdict", text=f"{cell.verdict}: {MEANING[cell.verdict]}")
    if cell.reason:
        yield Fact(name="why", text=cell.reason)
    if cell.ours is not None:
        yield from _measured(table, cell)
    if cell.published is not None:
        yield Fact(name="paper", text=f"{cell.published}, as printed")
    if cell.reference is not None:
        yield Fact(name="leaderboard", text=cell.reference)
    if cell.column in table.rules:
        yield Fact(name="rule", text=table.rules[cell.column])
    if report.command:
        yield Fact(name="command", text=command_of(report, row))


def _measured(table: Table, cell: Cell) -> Iterator[Fact]:
    ours = cell.ours
    assert ours is not None
    digits = max(decimals_of(cell), 1)
    yield Fact(name="ours", text=f"{ours.value:.{digits + 1}f}")
    yield Fact(name="n", text=f"{ours.n:,} items" + (f", {ours.correct:.10g} credits" if ours.correct is not None else ""))
    over_items = items_interval(ours, counted=not table.name.endswith("-rmbench"))
    if over_items is not None:
        yield Fact(name="95 % interval", text=f"{over_items.low:.{digits}f} to {over_items.high:.{digits}f}, over items")
    if len(ours.per_seed) > 1:
        over_seeds = mean_over_seeds(ours.per_seed)
        yield Fact(name="95 % interval", text=f"{over_seeds.low:.{digits}f} to {over_seeds.high:.{digits}f}, of the mean over seeds")
        yield Fact(name="seeds", text=", ".join(f"{one:.{digits}f}" for one in ours.per_seed))
    for artifact in ours.artifacts:
        yield Fact(name="artifact", text=artifact)


def command_of(report: Report, row: Row) -> str:
    """The command that makes a row's numbers or takes them from the store: the report's, cut to the row where that is one of ours."""
    kind = report.experiment.partition("-")[0]
    rows_of_ours = row.origin == "paper-ours" and kind not in WITHOUT_ROWS and "--rows" not in report.command
    return f"{report.command} --rows {shlex.quote(row.name)}" if rows_of_ours else report.command


