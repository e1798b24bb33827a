"""Commands that judge: diff, claims, leaderboard, report; and the run commands' way from per-item rewards to tables.

Exit codes of `diff`: 0 no verdict of --fail-on; 5 something is missing, 3 something differs, 4 something is inconclusive, in this order and
only if --fail-on names it; before any verdict 2 for what was asked for or holds wrong values, 6 for files that cannot be trusted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from replication.cli.options import (
    DEFAULT_STORE,
    FromOption,
    JsonOption,
    ProfileOption,
    ProtocolOption,
    RowsOption,
    SeedsOption,
    SetOption,
    StoreOption,
)
from replication.data_folders import AUTHORS_REWARDS
from replication.recipes.requested import ALL, Chosen, authors_rewards, experiments_named, settings_for
from replication.usage_problems import UsageProblems, nearest
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from replication.recipes.setting import Setting
    from replication.report.cells import Report
    from replication.report.claims.definitions import Claim, ClaimResult
    from replication.report.results.model import ResultFile
    from replication.settings.experiments import Experiment

FAILABLE = ("differs", "inconclusive", "missing")
MISSING_RESULTS = 5
REFERENCES = ("paper", "leaderboard", "release")
RENDERED = Path("tables") / "rendered"
WIDTH = 100

ResultsOption = Annotated[Path | None, typer.Option("--results", help="A results file in place of the store: ours, or RewardBench 2's.")]
SourceOption = Annotated[
    Literal["train", "released", "scores"],
    typer.Option("--from", help="train what is missing, score released checkpoints, or rebuild the tables from per-item rewards alone."),
]
ScoresOption = Annotated[
    Path | None, typer.Option("--scores", help="With --from scores: folder of <experiment>.results.json; for figure3 the authors' rewards.")
]


def diff(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    experiment: Annotated[str, typer.Argument(help="Name of an experiment.")],
    against: Annotated[str, typer.Option("--against", help="paper, leaderboard, release, or another results file.")] = "paper",
    results: ResultsOption = None,
    row: Annotated[str, typer.Option("--row", help="Only this row; of a RewardBench 2 file, the row that it is.")] = "",
    output_format: Annotated[
        Literal["text", "md", "json", "junit", "github"], typer.Option("--format", help="github also fills the step summary.")
    ] = "text",
    fail_on: Annotated[str, typer.Option("--fail-on", help=f"Of {', '.join(FAILABLE)}; comma-separated.")] = "differs,missing",
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    rows: RowsOption = "",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    source: FromOption = "train",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Our numbers against a reference, a verdict for each cell. Exit codes: 5 missing, 3 differs, 4 inconclusive, as --fail-on says."""
    from replication.report.verdicts import diff as comparing  # noqa: PLC0415 - statistics are not needed by --help
    from replication.report.verdicts.diff_formats import diff_text  # noqa: PLC0415 - as above

    named = _fail_on(fail_on)
    (wanted,) = experiments_named([experiment])[:1]
    if against not in REFERENCES and not Path(against).is_file():
        problem = f"--against {against}: neither one of {', '.join(REFERENCES)} nor a results file; {nearest(against, REFERENCES)}"
        raise UsageProblems([problem])
    given = tuple(assignments or ())
    chosen = Chosen(profile=profile, protocol=protocol, rows=rows, seeds=seeds, assignments=given, source=source)
    report = _of_store(wanted, chosen, store) if results is None else comparing.load_results(results, row=row)
    if results is not None and report.experiment != wanted.name:
        raise IntegrityProblem(f"{results}: holds {report.experiment}, not {wanted.name}")
    found = comparing.diff(comparing.only_row(report, row) if row else report, against)
    typer.echo(diff_text(found, output_format), nl=False)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output_format == "github" and summary:
        with Path(summary).open("a", encoding="utf-8") as out:
            out.write(diff_text(found, "md"))
    raise typer.Exit(comparing.exit_code(found, named))


def _fail_on(text: str) -> tuple[str, ...]:
    named = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    wrong = [name for name in named if name not in FAILABLE]
    if wrong:
        raise UsageProblems([f"--fail-on {name}: {nearest(name, FAILABLE)}" for name in wrong])
    return named


def _of_store(experiment: Experiment, chosen: Chosen, store: Path) -> Report:
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above

    place = ArtifactStore(store)
    (setting,) = settings_for([experiment], chosen, place, os.environ)
    return pipeline.report(recipe(setting), place, command=_run_command(experiment.name, chosen))


def _run_command(experiment: str, chosen: Chosen) -> str:
    """The command that would fill the gaps."""
    given = [("--protocol", chosen.protocol, "paper"), ("--seeds", chosen.seeds, "0"), ("--rows", chosen.rows, "")]
    given.append(("--from", chosen.source, "train"))
    options = [part for name, value, default in given if value != default for part in (name, value)]
    options += [part for one in chosen.assignments for part in ("--set", one)]
    return shlex.join(["replicate", experiment, "--profile", chosen.profile, *options])


def claims(
    profile: ProfileOption = "mini",
    seeds: SeedsOption = "0",
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The paper's claims, from its published numbers and from our own paired items where the store has them."""
    from replication.report.claims.published import published_claims  # noqa: PLC0415 - statistics are not needed by --help

    published = published_claims()
    own, missing = _own_results(profile=profile, seeds=seeds, store=store)
    if as_json:
        content = {
            "published": [one.model_dump() for one in published],
            "own": {name: [one.model_dump() for one in found] for name, found in own.items()},
            "missing": missing,
        }
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(_claims_text(published, own, profile=profile, seeds=seeds))
    for line in missing:
        typer.echo(line, err=True)


def _own_results(*, profile: str, seeds: str, store: Path) -> tuple[dict[str, tuple[ClaimResult, ...]], list[str]]:
    """For each claim one result a protocol that the store has, and across them; and what is lacking for protocol `paper`."""
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above
    from replication.report.claims.definitions import load_claims  # noqa: PLC0415 - as above
    from replication.report.claims.in_store import ClaimsInStore  # noqa: PLC0415 - as above
    from replication.settings.protocols import PAPER, PROTOCOLS  # noqa: PLC0415 - not needed by --help

    file, place = load_claims(), ArtifactStore(store)
    protocols = {}
    analogue = True
    for protocol in PROTOCOLS:
        settings = _claimed_settings(file.claims, profile=profile, protocol=protocol, seeds=seeds, store=place)
        analogue = not settings[0].profile.comparable
        protocols[protocol] = {setting.experiment.name: recipe(setting) for setting in settings}
    claimed = ClaimsInStore(file, place)
    chosen = Chosen(profile=profile, protocol=PAPER.name, seeds=seeds)
    missing = [
        f"not in the store: {', '.join(lacking)}; run: {_run_command(name, chosen)}"
        for name, lacking in claimed.missing(protocols[PAPER.name]).items()
    ]
    return claimed.results(protocols, analogue=analogue), missing


def _claimed_settings(claims: Sequence[Claim], *, profile: str, protocol: str, seeds: str, store: ArtifactStore) -> list[Setting]:
    """The settings of the experiments whose rewards bear on a claim."""
    names = list(dict.fromkeys(claim.experiment for claim in claims if claim.experiment))
    return settings_for(experiments_named(names), Chosen(profile=profile, protocol=protocol, seeds=seeds), store, os.environ)


def _claims_text(
    published: Sequence[ClaimResult], own: Mapping[str, Sequence[ClaimResult]], *, profile: str, seeds: str
) -> str:  # fmt: skip
    import textwrap  # noqa: PLC0415 - not needed by --help

    lines: list[str] = []

    def paragraph(head: str, text: str) -> None:
        lines.extend(textwrap.wrap(f"{head}{text}", width=WIDTH, subsequent_indent=" " * 8, break_on_hyphens=False))

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


def leaderboard(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    results: ResultsOption = None,
    row: Annotated[str, typer.Option("--row", help="The row that a RewardBench 2 file is.")] = "",
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    rows: RowsOption = "",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    source: FromOption = "train",
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Our Table 1 rows inside the captured leaderboard, with standard errors. A miniature is refused (exit code 6)."""
    from replication.report.results.leaderboard import ranking, ranking_text  # noqa: PLC0415 - as above
    from replication.report.verdicts.diff import load_results  # noqa: PLC0415 - statistics are not needed by --help

    given = tuple(assignments or ())
    chosen = Chosen(profile=profile, protocol=protocol, rows=rows, seeds=seeds, assignments=given, source=source)
    report = _of_store(experiments_named(["table1"])[0], chosen, store) if results is None else load_results(results, row=row)
    places = ranking(report)
    typer.echo(json.dumps([one.model_dump() for one in places], indent=2) if as_json else ranking_text(places).rstrip())


def report(
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    rendered: Annotated[Path, typer.Option("--rendered", help="Folder of rendered tables.")] = RENDERED,
) -> None:
    """All rendered tables, the claims and the audit's findings in one page. Exit code 5 when nothing was rendered."""
    from replication.report.render.page import page  # noqa: PLC0415 - as above
    from replication.report.verdicts.diff import load_results  # noqa: PLC0415 - rendering is not needed by --help

    files = sorted(path for path in rendered.glob("*/*.json") if not path.name.endswith(".results.json"))
    if not files:
        typer.echo(f"replicate: nothing was rendered in {rendered}; run: replicate table1", err=True)
        raise typer.Exit(MISSING_RESULTS)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page([load_results(path) for path in files]), encoding="utf-8", newline="\n")
    typer.echo(f"{len(files)} reports in {out}", err=True)


def rebuilt_from_scores(
    context: typer.Context,
    experiments: Sequence[Experiment],
    *,
    source: Literal["train", "released", "scores"],
    scores: Path | None,
    out: Path,
) -> bool:
    """For the run commands: whether the tables were rebuilt from per-item rewards, which starts no job and reads no store.

    The steered figure is drawn from the authors' own rewards. Raises UsageProblems for options that do not go together,
    ResultsError and DataError for files that cannot be trusted.
    """
    if source != "scores":
        if scores is not None:
            raise UsageProblems(["--scores is read only with --from scores"])
        return False
    _refuse_idle_options(context)
    steered = [experiment for experiment in experiments if experiment.product == "steering"]
    experiments = [experiment for experiment in experiments if experiment not in steered]
    if experiments and scores is None:
        raise UsageProblems(["--from scores needs --scores FOLDER, where <experiment>.results.json lies"])
    if steered:
        _authors_figure(scores, out, needed=not experiments)
    if scores is not None and experiments:
        _rebuild(context, experiments, scores=scores, out=out)
    return True


def _authors_figure(scores: Path | None, out: Path, *, needed: bool) -> None:
    """Draw the steered figure from the authors' rewards, in `--scores` or else in `SARM_DATA`; without them exit code 5 where needed."""
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.cli import progress  # noqa: PLC0415 - rendering is not needed by --help
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
    progress.console_for(sys.stdout).print(pipeline.terminal(found))
    typer.echo(f"tables and figures: {', '.join(str(file) for file in files)}", err=True)


def _rebuild(context: typer.Context, experiments: Sequence[Experiment], *, scores: Path, out: Path) -> None:
    from replication import pipeline  # noqa: PLC0415 - rendering is not needed by --help
    from replication.cli import progress  # noqa: PLC0415 - rendering is not needed by --help
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
        progress.console_for(sys.stdout).print(pipeline.terminal(found))
        typer.echo(f"tables: {', '.join(str(file) for file in files)}", err=True)


def _given(context: typer.Context, name: str) -> bool:
    """Whether an option of the current command was typed."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_idle_options(context: typer.Context) -> None:
    idle = {"rows": "--rows", "assignments": "--set", "fresh": "--fresh", "keep_going": "--keep-going", "launcher": "--launcher"}
    wrong = [option for name, option in idle.items() if _given(context, name)]
    if wrong:
        raise UsageProblems([f"{option} has no meaning with --from scores: nothing is run" for option in wrong])


def _refuse_other_scale(context: typer.Context, stored: ResultFile, path: Path) -> None:
    """The files say what they are; an option that says otherwise is a mistake. Raises IntegrityProblem."""
    typed = {name: str(context.params[name]) for name in ("profile", "protocol", "seeds")}
    asked = typed | {"profile": _profile_name(typed["profile"])}
    known = {"profile": stored.profile, "protocol": stored.protocol, "seeds": ",".join(map(str, stored.seeds))}
    for name, value in known.items():
        if _given(context, name) and asked[name] != value:
            raise IntegrityProblem(f"{path}: holds {name} {value}, not {asked[name]}; leave --{name} out or name another folder")


def _profile_name(text: str) -> str:
    """The name of a profile that may be given as a file."""
    path = Path(text)
    if path.suffix != ".toml" or not path.is_file():
        return text
    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("name", text))


COMMANDS: Mapping[str, Callable[..., None]] = {"diff": diff, "claims": claims, "leaderboard": leaderboard, "report": report}
