"""`replicate`: the commands together. Data goes to stdout, progress and problems to stderr.

Exit codes: 0 done, 1 failure, 2 usage, 3 a diff that differs, 4 an inconclusive one, 5 missing results, 6 integrity, 7 environment,
75 interrupted with a checkpoint, 130 SIGINT.
"""

from __future__ import annotations

import errno
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import typer

from replication.cli import demo, explore, fetch, files, init, judgement, report_page, store
from replication.cli.options.declared import DEFAULT_STORE
from replication.cli.options.groups import grouped
from replication.cli.running import experiments, runs
from replication.cli.slurm import slurm_app
from sarm.data.preferences import DataError
from sarm.job import EnvironmentProblem, JobError, printable
from sarm.judges.loopback import without_proxies_to_loopback
from sarm.metrics.credits import ScoringError
from sarm.store.tracebacks import keep_traceback
from sarm.store.whole_files import CANNOT_GROW

USAGE = 2
UNUSABLE_PLACES = frozenset((
    *(errno.EACCES, errno.EPERM, errno.EROFS, *CANNOT_GROW),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
))  # fmt: skip
INTERRUPTED = 130

app = typer.Typer(
    name="replicate",
    help="Repeat the tables of SARM (arXiv 2508.08746), with our numbers beside the published ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _room in (experiments, runs, store, files, fetch, init, demo, judgement, explore, report_page):
    for _name, _command in _room.COMMANDS.items():
        app.command(_name)(grouped(_command))
app.add_typer(store.store_app, name="store")
app.add_typer(slurm_app, name="slurm")


def main() -> None:
    """The console entry: runs the command line and turns every problem into lines on stderr and a documented exit code."""
    # A hub or a judge of this machine is asked directly, by this process and by the jobs that it starts.
    os.environ.update(without_proxies_to_loopback(os.environ))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_report_error(error))


def _report_error(error: Exception) -> int:
    """Say what went wrong; gives the exit code. The traceback of what nobody foresaw goes to a file."""
    if isinstance(error, JobError) or hasattr(error, "exit_code"):
        for line in str(error).splitlines():
            typer.echo(f"replicate: {line}", err=True)
        return int(getattr(error, "exit_code", 1))
    if isinstance(error, OSError) and error.errno in UNUSABLE_PLACES and (error.filename is not None or error.errno in CANNOT_GROW):
        # An option may name any place: one that is full, gone or not ours to write is no fault of the code, so no traceback.
        where, what = printable(str(error.filename or "what was being written")), error.strerror or type(error).__name__
        typer.echo(f"replicate: {where}: {what}; free it, or name another place", err=True)
        return EnvironmentProblem.exit_code
    if isinstance(error, DataError | ScoringError):
        typer.echo(f"replicate: {error}", err=True)
        return USAGE
    first = printable(str(error).splitlines()[0]) if str(error) else ""
    name = f"replicate-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-traceback.txt"
    kept = keep_traceback(Path(os.environ.get("SARM_STORE") or DEFAULT_STORE), name)
    typer.echo(f"replicate: {type(error).__name__}: {first}; traceback in {kept}", err=True)
    return 1
