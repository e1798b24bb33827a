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
    """A line of an opened cell; `code` is shown as such."""

    name: str
    text: str
    code: bool = False


class Place(Frozen):
    """A cell in the page: its texts, what it is sorted by, and what it opens to (nothing where it is only quoted)."""

    id: str
    column: str
    view: CellView
    sort: str
    facts: tuple[Fact, ...] = ()


class Line(Frozen):
    """A row in the page."""

    view: RowView
    places: tuple[Place, ...]


class Block(Frozen):
    """A table in the page."""

    address: str
    view: TableView
    lines: tuple[Line, ...]
    counts: str


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
    where = f"{address(report)}-{table.name}"
    lines = []
    for number, (row, shown) in enumerate(zip(table.rows, view.rows, strict=True)):
        places = [
            _place(report, table, row, both, f"{where}-{number}-{column}")
            for column, both in enumerate(zip(cells_of(row, table.columns), shown.cells, strict=True))
        ]
        lines.append(Line(view=shown, places=tuple(places)))
    return Block(address=where, view=view, lines=tuple(lines), counts=counted([cell.verdict for row in table.rows for cell in row.cells]))


def _place(report: Report, table: Table, row: Row, shown: tuple[Cell, CellView], name: str) -> Place:
    cell, view = shown
    value = f"{cell.ours.value:.10g}" if cell.ours is not None else cell.published or ""
    facts = () if cell.verdict == "PUBLISHED ONLY" else tuple(facts_of(report, table, row, cell))
    return Place(id=name, column=cell.column, view=view, sort=value, facts=facts)


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
        yield Fact(name="command", text=command_of(report, row), code=True)


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
        yield Fact(name="artifact", text=artifact, code=True)


def command_of(report: Report, row: Row) -> str:
    """The command that makes a row's numbers or takes them from the store: the report's, cut to the row where that is one of ours."""
    kind = report.experiment.partition("-")[0]
    rows_of_ours = row.origin == "paper-ours" and kind not in WITHOUT_ROWS and "--rows" not in report.command
    return f"{report.command} --rows {shlex.quote(row.name)}" if rows_of_ours else report.command


