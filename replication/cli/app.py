"""`replicate`: the commands, made from the registry. Data goes to stdout, progress and problems to stderr.

Exit codes: 0 done, 1 failure, 2 usage, 3 a diff that differs, 4 an inconclusive one, 5 missing results, 6 integrity, 7 environment,
75 interrupted with a checkpoint, 130 SIGINT.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from replication.cli import files, judgement
from replication.cli import store as store_commands
from replication.cli.experiment_text import listing, shown, why
from replication.cli.judgement import ScoresOption, SourceOption, rebuilt_from_scores
from replication.cli.judges import with_judges
from replication.cli.options import (
    DEFAULT_STORE,
    AllowDirtyOption,
    BatchTokensOption,
    FreshOption,
    FromOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    ProtocolOption,
    RowsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    SubsetOption,
)
from replication.cli.runs import (
    AnswersOption,
    ApiBaseOption,
    ClusterOption,
    CostOption,
    Endpoint,
    How,
    KeepGoingOption,
    KeyOption,
    LauncherOption,
    OfflineOption,
    OutOption,
    WorkersOption,
    YesOption,
    run,
    show_plan,
)
from replication.cli.slurm import slurm_app
from replication.recipes.requested import ALL, Chosen, experiments_named, scoring_assignments, settings_for, trained_or_released
from replication.settings.experiments import EXPERIMENTS, Axis, Experiment, ablation, ablation_names, sweep, sweep_values
from replication.usage_problems import UsageProblems, nearest, unknown
from sarm.data.preferences import DataError
from sarm.job import JobError
from sarm.metrics.credits import ScoringError
from sarm.store.artifacts import ArtifactStore

USAGE = 2
INTERRUPTED = 130
RENDERED = Path("tables") / "rendered"

app = typer.Typer(
    name="replicate",
    help="Repeat the tables of SARM (arXiv 2508.08746), with our numbers beside the published ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The console entry: runs the command line and turns every problem into lines on stderr and a documented exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_told(error))


def _told(error: Exception) -> int:
    """Say what went wrong; gives the exit code. The traceback of what nobody foresaw goes to a file."""
    if isinstance(error, JobError) or hasattr(error, "exit_code"):
        for line in str(error).splitlines():
            typer.echo(f"replicate: {line}", err=True)
        return int(getattr(error, "exit_code", 1))
    if isinstance(error, DataError | ScoringError):
        typer.echo(f"replicate: {error}", err=True)
        return USAGE
    typer.echo(f"replicate: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}; traceback in {_kept()}", err=True)
    return 1


def _kept() -> Path:
    """Write the current traceback where it can be found: into the store's logs, or else among the temporary files."""
    name = f"replicate-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-traceback.txt"
    for folder in (Path(os.environ.get("SARM_STORE") or DEFAULT_STORE) / ".logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path(os.devnull)


@app.command("list")
def list_experiments(
    kind: Annotated[
        Literal["table", "ablation", "sweep", "figure", "features", "claim"] | None, typer.Option("--kind", help="Only this kind.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Experiments of the registry, or the paper's claims."""
    typer.echo(listing(kind, as_json=as_json))


@app.command()
def show(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    experiment: Annotated[str, typer.Argument(help="Name of an experiment.")],
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    field: Annotated[str, typer.Option("--why", help="Only this field, for example learning_rate or reward.learning_rate.")] = "",
    rows: RowsOption = "",
    assignments: SetOption = None,
    source: FromOption = "train",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Every value of an experiment and where it comes from."""
    chosen = Chosen(profile=profile, protocol=protocol, rows=rows, assignments=tuple(assignments or ()), source=source)
    (setting,) = settings_for(experiments_named([experiment])[:1], chosen, ArtifactStore(store), os.environ)
    typer.echo(why(setting, field) if field else shown(setting, as_json=as_json))


@app.command()
def plan(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    experiments: Annotated[list[str], typer.Argument(help="Names of experiments, or all.")],
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    rows: RowsOption = "",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    source: FromOption = "train",
    cluster: Annotated[str, typer.Option("--cluster", help="a100, rtx3090, or a TOML file: its cards and resources.")] = "",
    measured: Annotated[bool, typer.Option("--measured", help="Predicted beside measured, for the jobs that are done.")] = False,
    fresh: FreshOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """What a run would do: each job, why it runs or is reused, and what it costs. Starts nothing."""
    given = tuple(assignments or ())
    chosen = Chosen(profile=profile, protocol=protocol, rows=rows, seeds=seeds, assignments=given, source=source)
    show_plan(experiments_named(experiments), chosen, store=store, cluster=cluster, measured=measured, fresh=fresh, as_json=as_json)


def _run_command(experiments: Sequence[Experiment], help_text: str) -> Callable[..., None]:
    """A command that runs and renders experiments of the registry."""

    def command(  # noqa: PLR0917 - one parameter an option, as Typer wants it
        context: typer.Context,
        profile: ProfileOption = "mini",
        protocol: ProtocolOption = "paper",
        rows: RowsOption = "",
        seeds: SeedsOption = "0",
        assignments: SetOption = None,
        subset: SubsetOption = "",
        limit: LimitOption = 0,
        batch_tokens: BatchTokensOption = 0,
        fresh: FreshOption = False,
        keep_going: KeepGoingOption = False,
        offline: OfflineOption = False,
        launcher: LauncherOption = "local",
        cluster: ClusterOption = "a100",
        yes: YesOption = False,
        workers: WorkersOption = 0,
        allow_dirty: AllowDirtyOption = False,
        source: SourceOption = "train",
        scores: ScoresOption = None,
        store: StoreOption = DEFAULT_STORE,
        out: OutOption = RENDERED,
    ) -> None:
        if rebuilt_from_scores(context, experiments, source=source, scores=scores, out=out):
            return
        part = scoring_assignments(subset=subset, limit=limit, batch_tokens=batch_tokens)
        given = (*(assignments or ()), *part)
        chosen = Chosen(profile=profile, protocol=protocol, rows=rows, seeds=seeds, assignments=given, source=trained_or_released(source))
        how = How(
            store=store, out=out, keep_going=keep_going, fresh=fresh, offline=offline, launcher=launcher, cluster=cluster, yes=yes,
            workers=workers, allow_dirty=allow_dirty,
            endpoint=context.obj or Endpoint(),
        )
        run(experiments, chosen, how)

    command.__doc__ = help_text
    return command


def explain_features(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    rows: RowsOption = "",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    api_base: ApiBaseOption = "",
    key_variable: KeyOption = "OPENAI_API_KEY",
    max_cost: CostOption = 5.0,
    answers: AnswersOption = None,
    fresh: FreshOption = False,
    keep_going: KeepGoingOption = False,
    offline: OfflineOption = False,
    launcher: LauncherOption = "local",
    cluster: ClusterOption = "a100",
    yes: YesOption = False,
    workers: WorkersOption = 0,
    allow_dirty: AllowDirtyOption = False,
    store: StoreOption = DEFAULT_STORE,
    out: OutOption = RENDERED,
) -> None:
    """What the latents with the largest head weights stand for, explained by an endpoint, recorded answers or planted concepts."""
    chosen = Chosen(profile=profile, protocol=protocol, rows=rows, seeds=seeds, assignments=tuple(assignments or ()))
    endpoint = Endpoint(api_base=api_base, key_variable=key_variable, max_cost=max_cost, answers=answers)
    how = How(
        store=store,
        out=out,
        keep_going=keep_going,
        fresh=fresh,
        offline=offline,
        launcher=launcher,
        cluster=cluster,
        yes=yes,
        workers=workers,
        allow_dirty=allow_dirty,
        endpoint=endpoint,
    )
    run([EXPERIMENTS["features"]], chosen, how)


app.command("features")(explain_features)
for _experiment in (one for one in EXPERIMENTS.values() if one.name != "features"):
    _run_it = _run_command([_experiment], f"{_experiment.title}: run what is missing, then render.")
    app.command(_experiment.name)(with_judges(_run_it) if _experiment.judges else _run_it)
app.command(ALL)(_run_command(list(EXPERIMENTS.values()), "Every experiment of the registry."))


@app.command("ablation")
def run_ablation(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help=" | ".join(ablation_names()))],
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    fresh: FreshOption = False,
    keep_going: KeepGoingOption = False,
    offline: OfflineOption = False,
    launcher: LauncherOption = "local",
    cluster: ClusterOption = "a100",
    yes: YesOption = False,
    workers: WorkersOption = 0,
    allow_dirty: AllowDirtyOption = False,
    source: SourceOption = "train",
    scores: ScoresOption = None,
    store: StoreOption = DEFAULT_STORE,
    out: OutOption = RENDERED,
) -> None:
    """One component taken away, beside the full model."""
    if name not in ablation_names():
        raise unknown("ablation", name, ablation_names())
    if rebuilt_from_scores(context, [ablation(name)], source=source, scores=scores, out=out):
        return
    given = tuple(assignments or ())
    chosen = Chosen(profile=profile, protocol=protocol, seeds=seeds, assignments=given, source=trained_or_released(source))
    how = How(
        store=store, out=out, keep_going=keep_going, fresh=fresh, offline=offline, launcher=launcher, cluster=cluster, yes=yes,
        workers=workers, allow_dirty=allow_dirty,
    )
    run([ablation(name)], chosen, how)


@app.command("sweep")
def run_sweep(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    context: typer.Context,
    axis: Annotated[str, typer.Option("--axis", help="layer | dim | k")],
    values: Annotated[str, typer.Option("--values", help="In the paper's units, comma-separated; all printed ones without it.")] = "",
    profile: ProfileOption = "mini",
    protocol: ProtocolOption = "paper",
    seeds: SeedsOption = "0",
    assignments: SetOption = None,
    fresh: FreshOption = False,
    keep_going: KeepGoingOption = False,
    offline: OfflineOption = False,
    launcher: LauncherOption = "local",
    cluster: ClusterOption = "a100",
    yes: YesOption = False,
    workers: WorkersOption = 0,
    allow_dirty: AllowDirtyOption = False,
    source: SourceOption = "train",
    scores: ScoresOption = None,
    store: StoreOption = DEFAULT_STORE,
    out: OutOption = RENDERED,
) -> None:
    """SAE layer, width or sparsity."""
    if rebuilt_from_scores(context, [_sweep(axis, values)], source=source, scores=scores, out=out):
        return
    given = tuple(assignments or ())
    chosen = Chosen(profile=profile, protocol=protocol, seeds=seeds, assignments=given, source=trained_or_released(source))
    how = How(
        store=store, out=out, keep_going=keep_going, fresh=fresh, offline=offline, launcher=launcher, cluster=cluster, yes=yes,
        workers=workers, allow_dirty=allow_dirty,
    )
    run([_sweep(axis, values)], chosen, how)


def _sweep(axis: str, values: str) -> Experiment:
    axes: dict[str, Axis] = {"layer": "layer", "dim": "dim", "k": "k"}
    if axis not in axes:
        raise unknown("axis", axis, axes)
    printed = sweep_values(axes[axis])
    asked = [value.strip() for value in values.split(",") if value.strip()]
    wrong = [value for value in asked if not value.isdecimal() or int(value) not in printed]
    if wrong:
        valid = [str(value) for value in printed]
        raise UsageProblems([f"--values {value}: not a printed value of axis {axis}; {nearest(value, valid)}" for value in wrong])
    return sweep(axes[axis], tuple(int(value) for value in asked))


for _name, _command in {**store_commands.COMMANDS, **files.COMMANDS, **judgement.COMMANDS}.items():
    app.command(_name)(_command)
app.add_typer(store_commands.store_app, name="store")
app.add_typer(slurm_app, name="slurm")
