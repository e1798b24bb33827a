"""A report as files: Markdown, LaTeX, HTML, JSON, CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from replication.data_folders import templates_folder
from replication.report.cells import Cell, Report
from replication.report.render.view import cells_of, latex, markdown, view_of
from sarm.store.whole_files import write_whole

Format = Literal["md", "tex", "html", "json", "csv"]
FORMATS: tuple[Format, ...] = ("md", "tex", "html", "json", "csv")
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
