"""A console on a stream."""

from __future__ import annotations

import os
from typing import IO

from rich.console import Console

PLAIN_WIDTH = 80
# A table in less room than this would show no column but its first.
NARROWEST = 40


def console_for(stream: IO[str]) -> Console:
    """A console on a stream: rich on a terminal, plain text elsewhere and with NO_COLOR, on 80 columns or as many as COLUMNS says."""
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        return Console(file=stream)
    width = None if stream.isatty() else _plain_width()
    return plain_console(stream, width)


def plain_console(stream: IO[str], width: int | None) -> Console:
    """A console without colour, bars and markup; without a width that of the terminal."""
    return Console(file=stream, width=width, color_system=None, force_terminal=False, highlight=False, legacy_windows=False)


def _plain_width() -> int:
    asked = os.environ.get("COLUMNS", "")
    return max(int(asked), NARROWEST) if asked.isdecimal() and len(asked) < 6 else PLAIN_WIDTH
