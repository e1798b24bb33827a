"""Commands that judge: diff, claims, leaderboard.

Exit codes of `diff`: 0 no verdict of --fail-on; 5 something is missing, 3 something differs, 4 something is inconclusive, in this order and
only if --fail-on names it (with --items 5 for an item that one file lacks, 3 for an outcome that differs); before any verdict 2 for what
was asked for or holds wrong values, 6 for files that cannot be trusted and for a results file with which nothing can be compared.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from replication.cli.item_diff import compare_items
from replication.cli.options.declared import (
    DEFAULT_STORE,
    MISSING_RESULTS,
    ExperimentArgument,
    ExperimentOptions,
    JsonOption,
    ProfileOption,
    SeedsOption,
    StoreOption,
)
from replication.cli.options.idle import refuse_idle
from replication.recipes.requested import Chosen, experiment_named, experiments_named, settings_for
from replication.terminal.console import console_for
from replication.usage_problems import UsageProblems, nearest
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from replication.recipes.setting import Setting
    from replication.report.cells import Report
    from replication.report.claims.definitions import Claim, ClaimResult
    from replication.settings.experiments import Experiment

FAILABLE = ("differs", "inconclusive", "missing")
REFERENCES = ("paper", "leaderboard", "release")

ResultsOption = Annotated[Path | None, typer.Option("--results", help="A results file in place of the store: ours, or RewardBench 2's.")]


def diff(
    context: typer.Context,
    *,
    experiment: ExperimentArgument,
    against: Annotated[str, typer.Option("--against", help="paper, leaderboard, release, or another results file.")] = "paper",
    results: ResultsOption = None,
    row: Annotated[str, typer.Option("--row", help="Only this row; of a RewardBench 2 file, the row that it is.")] = "",
    output_format: Annotated[
        Literal["text", "md", "json", "junit", "github"], typer.Option("--format", help="github also fills the step summary.")
    ] = "text",
    fail_on: Annotated[str, typer.Option("--fail-on", help=f"Of {', '.join(FAILABLE)}; comma-separated.")] = "differs,missing",
    items: Annotated[bool, typer.Option("--items", help="Item by item: --row against a FILE of rewards, official or ours.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --items, all that differ; without, the worst twenty.")] = False,
    asked: ExperimentOptions,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Our numbers against a reference, a verdict for each cell. Exit codes: 5 missing, 3 differs, 4 inconclusive, as --fail-on says."""
    from replication.report.verdicts.diff import diff_of, exit_code  # noqa: PLC0415 - statistics are not needed by --help
    from replication.report.verdicts.diff_formats import add_to_step_summary, diff_text  # noqa: PLC0415 - as above

    named = _fail_on(fail_on)
    wanted = experiment_named(experiment)
    _refuse_idle(context, results, cells=not items)
    if items:
        command = asked.chosen.command(wanted.name, store)
        code = compare_items(
            wanted, row=row, against=against, results=results, chosen=asked.chosen, store=store, form=output_format, everything=everything,
            fail_on=named, command=command,
        )  # fmt: skip
        raise typer.Exit(code)
    report = _judged(wanted, against=against, results=results, row=row, chosen=asked.chosen, store=store)
    found = diff_of(report, against, row=row)
    typer.echo(diff_text(found, output_format, width=console_for(sys.stdout).width), nl=False)
    if output_format == "github":
        add_to_step_summary(diff_text(found, "md"))
    if found.no_verdict:
        typer.echo(f"{against}: {found.no_verdict}; no verdict", err=True)
    raise typer.Exit(exit_code(found, named))


def _judged(experiment: Experiment, *, against: str, results: Path | None, row: str, chosen: Chosen, store: Path) -> Report:
    """The report that is held against a reference, which is one. Raises UsageProblems, IntegrityProblem, ResultsError."""
    from replication.report.verdicts.diff import load_results  # noqa: PLC0415 - statistics are not needed by --help

    if against not in REFERENCES and not Path(against).is_file():
        problem = f"--against {against}: neither one of {', '.join(REFERENCES)} nor a results file; {nearest(against, REFERENCES)}"
        raise UsageProblems([problem])
    report = _of_store(experiment, chosen, store) if results is None else load_results(results, row=row)
    if results is not None and report.experiment != experiment.name:
        raise IntegrityProblem(f"{results}: holds {report.experiment}, not {experiment.name}")
    if results is None and not report.tables:
        _refuse_unmeasured(report, chosen.command(experiment.name, store))
    return report


def _refuse_unmeasured(report: Report, command: str) -> None:
    """Raises ResultsError (5) for a report of which nothing was measured; where it has cells, they say so."""
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.report.results.reading import ResultsError  # noqa: PLC0415 - as above

    if not pipeline.measured(report):
        raise ResultsError(f"nothing of {report.experiment} was measured yet; run: {command}", exit_code=MISSING_RESULTS)


def _refuse_idle(context: typer.Context, results: Path | None, *, cells: bool = False) -> None:
    """Raises UsageProblems for options that say which rewards of the store are meant, where a file is read, and for --all of cells."""
    if cells:
        refuse_idle(context, "without --items: every cell of a table is shown anyway", only=["everything"])
    if results is not None:
        refuse_idle(context, "with --results: the file says what it is", only=[one.name for one in dataclasses.fields(ExperimentOptions)])


def _fail_on(text: str) -> tuple[str, ...]:
    named = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    wrong = [name for name in named if name not in FAILABLE]
    if wrong:
        raise UsageProblems([f"--fail-on {name}: {nearest(name, FAILABLE)}" for name in wrong])
    return named


def _of_store(experiment: Experiment, chosen: Chosen, store: Path) -> Report:
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    (setting,) = settings_for([experiment], chosen, artifacts, os.environ)
    return pipeline.report(recipe(setting), artifacts, command=chosen.command(experiment.name, store))


def claims(
    profile: ProfileOption = "mini",
    seeds: SeedsOption = "0",
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The paper's claims, from its published numbers and from our own paired items where the store has them."""
    from replication.report.claims.published import published_claims  # noqa: PLC0415 - statistics are not needed by --help

    published = published_claims()
    own, missing = own_results(profile=profile, seeds=seeds, store=store)
    if as_json:
        content = {
            "published": [one.model_dump() for one in published],
            "own": {name: [one.model_dump() for one in found] for name, found in own.items()},
            "missing": missing,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(_claims_text(published, own, profile=profile, seeds=seeds, width=console_for(sys.stdout).width))
    for line in missing:
        typer.echo(line, err=True)


def own_results(*, profile: str, seeds: str, store: Path) -> tuple[dict[str, tuple[ClaimResult, ...]], list[str]]:
    """For each claim one result a protocol that the store has, and across them; and what is lacking for protocol `paper`."""
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above
    from replication.report.claims.definitions import load_claims  # noqa: PLC0415 - as above
    from replication.report.claims.in_store import ClaimsInStore  # noqa: PLC0415 - as above
    from replication.settings.protocols import PAPER, PROTOCOLS  # noqa: PLC0415 - not needed by --help

    file, artifacts = load_claims(), ArtifactStore(store)
    protocols = {}
    analogue = True
    for protocol in PROTOCOLS:
        settings = _claimed_settings(file.claims, profile=profile, protocol=protocol, seeds=seeds, store=artifacts)
        analogue = not settings[0].profile.comparable
        protocols[protocol] = {setting.experiment.name: recipe(setting) for setting in settings}
    claimed = ClaimsInStore(file, artifacts)
    chosen = Chosen(profile=profile, protocol=PAPER.name, seeds=seeds)
    missing = [
        f"not in the store: {', '.join(lacking)}; run: {chosen.command(name, store)}"
        for name, lacking in claimed.missing(protocols[PAPER.name]).items()
    ]
    return claimed.results(protocols, analogue=analogue), missing


def _claimed_settings(claims: Sequence[Claim], *, profile: str, protocol: str, seeds: str, store: ArtifactStore) -> list[Setting]:
    """The settings of the experiments whose rewards bear on a claim."""
    names = list(dict.fromkeys(claim.experiment for claim in claims if claim.experiment))
    return settings_for(experiments_named(names), Chosen(profile=profile, protocol=protocol, seeds=seeds), store, os.environ)


def _claims_text(
    published: Sequence[ClaimResult], own: Mapping[str, Sequence[ClaimResult]], *, profile: str, seeds: str, width: int
) -> str:  # fmt: skip
    import textwrap  # noqa: PLC0415 - not needed by --help

    lines: list[str] = []

    def paragraph(head: str, text: str) -> None:
        lines.extend(textwrap.wrap(f"{head}{text}", width=width, subsequent_indent=" " * 8, break_on_hyphens=False))

    for claim in published:
        paragraph(f"{claim.id:<6}  ", f"{claim.says} [{claim.place}]")
        power = f"; power {claim.power_unpaired:.0%} unpaired, {claim.power_paired:.0%} paired" if claim.power_unpaired is not None else ""
        adjusted = f"; Holm p {claim.p_holm:.3f}" if claim.p_holm is not None else ""
        paragraph("        published: ", f"{claim.outcome}; {claim.detail}{adjusted}{power}")
        for one in own.get(claim.id, ()):
            paragraph(f"        ours ({profile}, protocol {one.protocol}, seeds {seeds}): ", f"{one.outcome}; {one.detail}")
    if not own:
        lines.append(f"no results of ours for profile {profile}, seeds {seeds}")
    return "\n".join(lines)


def leaderboard(
    context: typer.Context,
    *,
    results: ResultsOption = None,
    row: Annotated[str, typer.Option("--row", help="The row that a RewardBench 2 file is.")] = "",
    asked: ExperimentOptions,
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Our Table 1 rows inside the captured leaderboard, with standard errors. A miniature is refused (exit code 6)."""
    from replication.report.results.leaderboard import ranking, ranking_text  # noqa: PLC0415 - as above
    from replication.report.verdicts.diff import load_results  # noqa: PLC0415 - statistics are not needed by --help

    _refuse_idle(context, results)
    report = _of_store(experiment_named("table1"), asked.chosen, store) if results is None else load_results(results, row=row)
    places = ranking(report)
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in places], indent=2))
    else:
        typer.echo(ranking_text(places, width=console_for(sys.stdout).width).rstrip())


COMMANDS: Mapping[str, Callable[..., None]] = {"diff": diff, "claims": claims, "leaderboard": leaderboard}
