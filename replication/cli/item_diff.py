"""`replicate diff --items`: where our per-item rewards of a row lie, and their comparison with another file's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from replication.cli.options.declared import MISSING_RESULTS
from replication.recipes.requested import Chosen, settings_for
from replication.usage_problems import UsageProblems, nearest
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import sha256_of

if TYPE_CHECKING:
    from replication.settings.experiments import Experiment

RESULTS = ".results.json"


def compare_items(
    experiment: Experiment, *, row: str, against: str, results: Path | None, chosen: Chosen, store: Path, form: str, everything: bool,
    fail_on: Sequence[str], command: str,
) -> int:  # fmt: skip
    """Print the comparison; gives the exit code. Raises UsageProblems, ResultsError and DataError."""
    from replication.report.results.score_files import benchmark_of, read_noted  # noqa: PLC0415 - not needed by --help
    from replication.report.verdicts.diff_formats import add_to_step_summary  # noqa: PLC0415 - as above
    from replication.report.verdicts.item_formats import items_text  # noqa: PLC0415 - as above
    from replication.report.verdicts.items import items_diff, items_exit_code  # noqa: PLC0415 - as above

    wrong = [] if row else ["--items compares one model: name its row with --row ROW"]
    wrong += [] if Path(against).is_file() else [f"--items compares with a file of per-item rewards: --against FILE; {against} is none"]
    if form not in ("text", "md", "json", "github"):
        wrong.append(f"--format {form} has no form for items; valid: text, md, json, github")
    if wrong:
        raise UsageProblems(wrong)
    benchmark = benchmark_of(Path(against))
    if results is None:
        path, where = _in_store(experiment, row, benchmark, chosen=chosen, store=ArtifactStore(store), command=command)
    else:
        path, where = _in_results(results, row, benchmark) if results.name.endswith(RESULTS) else (results, str(results))
    (ours, of_ours), (theirs, of_theirs) = read_noted(path, benchmark), read_noted(Path(against), benchmark)
    names = {"experiment": experiment.name, "row": row, "ours": where, "against": against}
    found = items_diff(ours, theirs, benchmark=benchmark, names=names)  # type: ignore[arg-type]
    for name, notes in ((where, of_ours), (against, of_theirs)):
        for note in notes:
            typer.echo(f"note: {name}: {note}", err=True)
    typer.echo(items_text(found, form, everything=everything), nl=False)  # type: ignore[arg-type]
    if form == "github":
        add_to_step_summary(items_text(found, "md", everything=everything))
    return items_exit_code(found, fail_on)


def _in_store(
    experiment: Experiment, row: str, benchmark: str, *, chosen: Chosen, store: ArtifactStore, command: str
) -> tuple[Path, str]:  # fmt: skip
    """The rewards of a row in the store, and what they are called."""
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above
    from replication.report.measurements import REWARDS_FILE  # noqa: PLC0415 - as above
    from replication.report.results.files import scorings  # noqa: PLC0415 - as above
    from replication.report.results.reading import ResultsError  # noqa: PLC0415 - as above

    (setting,) = settings_for([experiment], chosen, store, os.environ)
    planned = list(scorings(recipe(setting), store))
    known = dict.fromkeys(name for name, *_ in planned)
    if row not in known:
        raise UsageProblems([f"--row {row}: {experiment.name} scores no such row; {nearest(row, known)}"])
    jobs = [(seed, job) for name, seed, scored, job in planned if name == row and scored == benchmark]
    if len(jobs) > 1:
        raise UsageProblems([f"--row {row}: has {len(jobs)} seeds; --items compares one: --seeds {jobs[0][0]}"])
    if not jobs or not store.has(jobs[0][1]):
        raise ResultsError(f"{row} has no rewards of {benchmark} in {store.root}; run: {command}", exit_code=MISSING_RESULTS)
    (_, job), = jobs
    return store.path(job) / REWARDS_FILE, f"{job.kind}/{job.short_key}"


def _in_results(results: Path, row: str, benchmark: str) -> tuple[Path, str]:
    """The rewards beside a results.json of ours, which must be those that it describes."""
    from replication.report.results.reading import ResultsError, read_results  # noqa: PLC0415 - as above

    rewards = read_results(results).rewards
    found = [one for one in rewards if (one.model, one.benchmark) == (row, benchmark)]
    if len(found) != 1:
        models = nearest(row, {one.model for one in rewards if one.benchmark == benchmark})
        how = f"{len(found)} files of rewards (seeds); give one of them as --results" if found else f"no rewards of it; {models}"
        raise ResultsError(f"{results}: --row {row} on {benchmark}: {how}", exit_code=2)
    path = results.parent / found[0].file
    if not path.is_file():
        raise ResultsError(f"{path}: no such file of rewards; {results.name} names it, so copy it too", exit_code=MISSING_RESULTS)
    if sha256_of(path) != found[0].sha256:
        raise IntegrityProblem(f"{path}: is not the file that {results.name} describes (SHA-256 differs)")
    return path, str(path)
