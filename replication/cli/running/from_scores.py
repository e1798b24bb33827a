"""`--from scores`: the run commands' way from per-item rewards to tables, which starts no job and reads no store."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from replication.cli.options.declared import MISSING_RESULTS
from replication.cli.options.idle import refuse_idle, typed
from replication.data_folders import AUTHORS_REWARDS
from replication.recipes.requested import ALL, authors_rewards
from replication.usage_problems import UsageProblems
from sarm.job import IntegrityProblem

# What it reads; which scale the files are of is checked against the first three.
READ = ("profile", "protocol", "seeds", "source", "scores", "out", "full", "name", "axis", "values")

if TYPE_CHECKING:
    from replication.report.results.model import ResultFile
    from replication.settings.experiments import Experiment


def rebuild_tables(context: typer.Context, experiments: Sequence[Experiment], *, scores: Path | None, out: Path, full: bool) -> None:
    """The tables of experiments from the per-item rewards in the folder `scores`; the steered figure from the authors' own rewards.

    Raises UsageProblems for options that do not go together, ResultsError and DataError for files that cannot be trusted.
    """
    refuse_idle(context, "with --from scores: nothing is run", but=READ)
    steered = [experiment for experiment in experiments if experiment.product == "steering"]
    experiments = [experiment for experiment in experiments if experiment not in steered]
    if experiments and scores is None:
        raise UsageProblems(["--from scores needs --scores FOLDER, where <experiment>.results.json lies"])
    if steered:
        _authors_figure(scores, out, needed=not experiments, full=full)
    if scores is not None and experiments:
        _rebuild(context, experiments, scores=scores, out=out, full=full)


def _authors_figure(scores: Path | None, out: Path, *, needed: bool, full: bool) -> None:
    """Draw the steered figure from the authors' rewards, in `--scores` or else in `SARM_DATA`; without them exit code 5 where needed."""
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.cli.running import closing  # noqa: PLC0415 - rendering is not needed by --help
    from replication.report.results.reading import ResultsError  # noqa: PLC0415 - as above

    path = authors_rewards(os.environ, scores)
    if not path:
        problem = (
            "figure3 --from scores: the authors' rewards are not here; set SARM_DATA to the folder that has "
            f"{AUTHORS_REWARDS}, or name the folder of {AUTHORS_REWARDS.name} with --scores"
        )
        if needed:
            raise ResultsError(problem, exit_code=MISSING_RESULTS)
        typer.echo(problem, err=True)
        return
    found, files = pipeline.from_authors(Path(path), out)
    closing.show([found], full=full)
    typer.echo(f"tables and figures: {', '.join(str(file) for file in files)}", err=True)


def _rebuild(context: typer.Context, experiments: Sequence[Experiment], *, scores: Path, out: Path, full: bool) -> None:
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.cli.running import closing  # noqa: PLC0415 - rendering is not needed by --help
    from replication.report.results.reading import ResultsError, read_results  # noqa: PLC0415 - as above

    paths = [scores / f"{experiment.name}.results.json" for experiment in experiments]
    present = [path for path in paths if path.is_file()]
    if not present or (len(present) < len(paths) and context.info_name != ALL):
        absent = next(path for path in paths if path not in present)
        raise ResultsError(f"{absent}: no such results file; a run command writes it beside its tables", exit_code=MISSING_RESULTS)
    for path in present:
        stored = read_results(path)
        if len(paths) > 1 and not stored.rewards:
            typer.echo(f"{stored.experiment}: left out, since it has no per-item rewards", err=True)
            continue
        _refuse_other_scale(context, stored, path)
        found, files = pipeline.from_scores(path, out)
        closing.show([found], full=full)
        typer.echo(f"tables: {', '.join(str(file) for file in files)}", err=True)


def _refuse_other_scale(context: typer.Context, stored: ResultFile, path: Path) -> None:
    """The files say what they are; an option that says otherwise is a mistake. Raises IntegrityProblem."""
    given = {name: str(context.params[name]) for name in ("profile", "protocol", "seeds")}
    asked = given | {"profile": _profile_name(given["profile"])}
    known = {"profile": stored.profile, "protocol": stored.protocol, "seeds": ",".join(map(str, stored.seeds))}
    for name, value in known.items():
        if typed(context, name) and asked[name] != value:
            raise IntegrityProblem(f"{path}: holds {name} {value}, not {asked[name]}; leave --{name} out or name another folder")


def _profile_name(text: str) -> str:
    """The name of a profile that may be given as a file."""
    path = Path(text)
    if path.suffix != ".toml" or not path.is_file():
        return text
    return str(tomllib.loads(path.read_text(encoding="utf-8-sig")).get("name", text))
