"""What a command says when it is done: the reports, where the files are, what to run next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from replication.cli.options.declared import DEFAULT_STORE, RENDERED, RunOptions, typed_command, whole_command
from replication.recipes.requested import Chosen
from replication.report.cells import Report
from replication.report.render.terminal.printing import on_terminal
from replication.report.results.files import earlier_files
from replication.terminal.console import console_for
from replication.terminal.fitting import wrapped

if TYPE_CHECKING:
    from replication.pipeline import Outcome


def show(reports: Sequence[Report], *, full: bool) -> None:
    """The reports on stdout, short unless `full`."""
    console = console_for(sys.stdout)
    for place, report in enumerate(reports):
        if place:
            console.print()
        console.print(on_terminal(report, width=console.width, command=whole_command(), full=full))


def files_and_next(outcome: Outcome, how: RunOptions, chosen: Chosen) -> list[str]:
    """Where the tables lie, what lies there that is not of them, and the command that a reader wants now."""
    tables = [path for path in outcome.files if path.suffix == ".md"]
    lines = [f"tables: {', '.join(map(str, tables))} (and tex, html, json, csv; pictures as svg and png)"] if tables else []
    left = earlier_files(outcome.results)
    if left:
        folders = ", ".join(dict.fromkeys(str(path.parent) for path in left))
        lines.append(f"note: of an earlier draw, not of these tables: {left[0].name}{_more(left)} in {folders}")
    return [*lines, *(f"next: {one}" for one in _next(outcome, how, chosen))]


def _more(found: Sequence[Path]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def say(lines: Sequence[str]) -> None:
    """Sentences on stderr, in the width that it has. Commands and paths are not for this: a line end would break them."""
    width = console_for(sys.stderr).width
    for line in lines:
        typer.echo("\n".join(wrapped(line, width)), err=True)


def _next(outcome: Outcome, how: RunOptions, chosen: Chosen) -> list[str]:
    if outcome.code:
        return [f"{typed_command()}  (goes on where it stopped)"]
    if how.launcher == "slurm" and outcome.started:
        return [f"{typed_command()}  (later: renders what is done)"]
    rendered = [] if how.out == RENDERED else ["--rendered", str(how.out)]
    store = [] if how.store == DEFAULT_STORE else ["--store", str(how.store)]
    page = shlex.join(["replicate", "report", *rendered, *store])
    if chosen.source != "train":
        return [f"{page}  (all tables in one page)"]
    claims = shlex.join(["replicate", "claims", "--profile", chosen.profile, "--seeds", chosen.seeds, *store])
    return [f"{page}  (all tables in one page)", f"{claims}  (the paper's claims)"]
