"""A report printed on a console, or as plain text."""

from __future__ import annotations

import io

from rich.console import Group, RenderableType

from replication.report.cells import Report
from replication.report.render.terminal.short import short_view
from replication.report.render.terminal.whole import whole_view
from replication.terminal.console import NARROWEST, PLAIN_WIDTH, plain_console


def on_terminal(report: Report, *, width: int, command: str, full: bool = False) -> RenderableType:
    """The report in `width` columns; `command` is what prints it whole, `full` leaves nothing out."""
    width = max(width, NARROWEST)
    return Group(*(whole_view(report, width=width) if full else short_view(report, width=width, command=command)))


def plain_text(report: Report, *, width: int = PLAIN_WIDTH, command: str = "", full: bool = False) -> str:
    """The terminal's text of a report, without colour."""
    stream = io.StringIO()
    plain_console(stream, width).print(on_terminal(report, width=width, command=command, full=full))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
