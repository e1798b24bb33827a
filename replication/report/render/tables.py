"""A report as files (Markdown, LaTeX, HTML, JSON, CSV) and as a table for the terminal."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from replication.data_folders import templates_folder
from replication.report.cells import Cell, Report, Verdict
from replication.report.render.view import DASH, SHORT, CellView, ListingView, ReportView, TableView, cells_of, latex, markdown, view_of
from sarm.store.whole_files import write_whole

Format = Literal["md", "tex", "html", "json", "csv"]
FORMATS: tuple[Format, ...] = ("md", "tex", "html", "json", "csv")
PLAIN_WIDTH = 100
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
CSV_COLUMNS = (
    "table", "row", "label", "size", "group", "origin", "column", "ours", "standard_error", "n", "correct", "per_seed",
    "published", "leaderboard", "verdict", "reason",
)  # fmt: skip


def render(report: Report, folder: Path, *, formats: Sequence[Format] = FORMATS) -> tuple[Path, ...]:
    """Writes `<experiment>.<format>` for each format into the folder, which is made; the paths, in the order asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in formats:
        path = folder / f"{report.experiment}.{name}"
        write_whole(path, as_text(report, name))
        paths.append(path)
    return tuple(paths)


def as_text(report: Report, name: Format) -> str:
    """The report in one format."""
    writers: Mapping[Format, Callable[[Report], str]] = {
        "md": _markdown,
        "tex": _latex,
        "html": _html,
        "json": lambda one: one.model_dump_json(indent=2) + "\n",
        "csv": _csv,
    }
    return writers[name](report)


def _markdown(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(templates_folder()), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["md"] = markdown
    return environment.get_template("table.md.j2").render(view=view_of(report))


def _latex(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(templates_folder()), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False,
        block_start_string="((*", block_end_string="*))", variable_start_string="(((", variable_end_string=")))",
        comment_start_string="((=", comment_end_string="=))", trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["tex"] = latex
    environment.filters["texname"] = lambda name: re.sub(r"[^A-Za-z0-9:-]+", "-", name)
    return environment.get_template("table.tex.j2").render(view=view_of(report))


def _html(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(templates_folder()), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=True
    )
    return environment.get_template("table.html.j2").render(view=view_of(report))


def _csv(report: Report) -> str:
    """One line a cell. A missing number is an empty field, never 0; a listing's texts stand in the column `ours`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in report.tables:
        for row in table.rows:
            for cell in cells_of(row, table.columns):
                writer.writerow((table.name, row.name, row.label, row.size, row.group, row.origin, cell.column, *_csv_values(cell)))
    for listing in report.listings:
        for number, texts in enumerate(listing.rows, start=1):
            for column, text in zip(listing.columns, texts, strict=True):
                writer.writerow((listing.name, number, texts[0], "", "", "", column, text, *[""] * 8))
    return stream.getvalue()


def _csv_values(cell: Cell) -> tuple[str, ...]:
    ours = cell.ours
    numbers: tuple[str, ...] = ("", "", "", "", "")
    if ours is not None:
        error = "" if ours.standard_error is None else f"{ours.standard_error:.6g}"
        correct = "" if ours.correct is None else f"{ours.correct:.10g}"
        numbers = (f"{ours.value:.10g}", error, str(ours.n), correct, " ".join(f"{value:.10g}" for value in ours.per_seed))
    return (*numbers, cell.published or "", cell.reference or "", cell.verdict, cell.reason)


def console_for(stream: IO[str]) -> Console:
    """A console on a stream: rich on a terminal, else 100 columns of plain text; NO_COLOR takes the colour and the width rule too."""
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        return Console(file=stream)
    return Console(file=stream, width=PLAIN_WIDTH, color_system=None, force_terminal=False, highlight=False, legacy_windows=False)


def plain_text(report: Report) -> str:
    """The terminal's table as 100-column text without colour."""
    stream = io.StringIO()
    console_for(stream).print(terminal(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def terminal(report: Report) -> RenderableType:
    """The report for a terminal: for each row ours, the paper's, the leaderboard's and the verdict below each other."""
    view = view_of(report)
    head = f"{report.title}\nprofile {report.profile}, protocol {report.protocol}, seeds {view.seeds}"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if not report.comparable:
        parts.append(Text(f"Not comparable with the paper: {report.why_not_comparable}", style="yellow"))
    for table in view.tables:
        parts += [Text(""), Text(table.title, style="bold"), _rich_table(table), *_below(table)]
    for one in view.listings:
        parts += [Text(""), Text(one.listing.title, style="bold"), _rich_listing(one), *map(Text, one.listing.notes)]
    parts += _footer(view)
    return Group(*parts)


def _rich_table(table: TableView) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    grid.add_column("model", overflow="fold", ratio=None, max_width=24)
    grid.add_column("", no_wrap=True)
    for column in table.columns:
        grid.add_column(column, justify="right", overflow="fold")
    for row in table.rows:
        if row.starts_group:
            grid.add_row(Text(row.group, style="italic"))
        label = f"{row.label} {row.size}".strip()
        for place, (source, texts) in enumerate(row.lines):
            fields = [_rich_cell(source, text, cell) for text, cell in zip(texts, row.cells, strict=True)]
            grid.add_row(Text(label if place == 0 else "", style="bold" if row.measured else ""), Text(source, style="dim"), *fields)
    return grid


def _rich_listing(one: ListingView) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column, right in zip(one.listing.columns, one.right, strict=True):
        grid.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in one.listing.rows:
        grid.add_row(*map(Text, row))
    return grid


def _rich_cell(source: str, text: str, cell: CellView) -> Text:
    if source == "verdict":
        return Text(SHORT[cell.verdict] + (f" {cell.mark}" if cell.mark and cell.ours != DASH else ""), style=STYLES[cell.verdict])
    if source == "ours":
        # The number of seeds stands below the table: there is no room for it in 100 columns.
        return Text(text.partition(" (n ")[0].replace(" ± ", "±").replace(f"{DASH} (", f"{DASH} ").rstrip(")"), style="bold")
    return Text(text, style="dim" if source == "board" else "")


def _below(table: TableView) -> list[RenderableType]:
    lines = [f"Items: {table.items}"] if table.items else []
    lines += [f"±: {table.seeded}"] if table.seeded else []
    lines += [f"{number}  {reason}" for number, reason in table.footnotes]
    lines += [f"{row.label}: {row.note}" for row in table.rows if row.note]
    lines += list(table.notes)
    return [Text(line) for line in lines]


def _footer(view: ReportView) -> list[RenderableType]:
    report = view.report
    parts: list[RenderableType] = [Text("")]
    parts += [Text(f"{SHORT[verdict]}: {meaning}", style=STYLES[verdict]) for verdict, meaning in view.legend if SHORT[verdict]]
    for title, entries in (("Notes", report.notes), ("Deviations from the paper", report.deviations)):
        if entries:
            parts += [Text(""), Text(title, style="bold"), *(Padding(Text(f"- {entry}"), (0, 0, 0, 0)) for entry in entries)]
    if report.provenance:
        codes = ", ".join(dict.fromkeys(one.code for one in report.provenance))
        parts += [Text(""), Text(f"{len(report.provenance)} artifacts, code {codes}", style="dim")]
    return parts
