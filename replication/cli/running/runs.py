"""Commands that run experiments, and what each run does: plan, refuse, confirm, launch, render."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replication.cli.options.declared import ExperimentOptions, PartOptions, RunOptions, SteerOption, typed_command
from replication.cli.options.endpoint import Endpoint, ExplainerOptions, JudgeOptions, refuse_other_addresses, with_endpoint
from replication.cli.options.groups import Without
from replication.cli.running.from_scores import rebuild_tables
from replication.cli.running.time_left import Expected
from replication.recipes.requested import ALL, Chosen, settings_for
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS, Axis, Experiment, ablation, ablation_names, sweep, sweep_values
from replication.settings.steering_files import read_steering_file
from replication.usage_problems import UsageProblems, nearest, unknown
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from replication.launch.interface import Launcher
    from replication.plan.steps import Plan
    from replication.settings.clusters import Cluster

LONG_RUN_SECONDS = 2 * 3600
WHOLE = PartOptions()
NOBODY = Endpoint()
# Folder below --out for figures of a steering file.
STEERED = "steered"

AskedOptions = Annotated[ExperimentOptions, Without("source")]
AskedWholeOptions = Annotated[ExperimentOptions, Without("rows", "source")]


def _run_command(experiments: Sequence[Experiment], help_text: str) -> Callable[..., None]:
    """A command that runs and renders experiments of the registry; where one alone has judges, with the options to ask them."""

    def run_plainly(context: typer.Context, *, asked: AskedOptions, part: PartOptions, how: RunOptions) -> None:
        _run_or_rebuild(context, experiments, asked, how, part=part)

    def run_with_judges(
        context: typer.Context, *, asked: AskedOptions, part: PartOptions, how: RunOptions, judges: JudgeOptions
    ) -> None:
        _run_or_rebuild(context, experiments, asked, how, part=part, endpoint=judges.endpoint)

    def run_steered(
        context: typer.Context, *, asked: AskedOptions, part: PartOptions, how: RunOptions, steer: SteerOption = None
    ) -> None:
        if steer is not None and how.source == "scores":
            raise UsageProblems(["--steer edits a model, and --from scores has none; leave one of them out"])
        # Beside the figure of the paper's rule, not over it.
        where = replace(how, out=how.out / STEERED) if steer is not None else how
        _run_or_rebuild(context, experiments, asked, where, part=part, steer=steer)

    command: Callable[..., None] = run_plainly
    if len(experiments) == 1:
        command = run_with_judges if experiments[0].judges else run_steered if experiments[0].product == "steering" else run_plainly
    command.__doc__ = help_text
    return command


def explain_features(
    *, asked: AskedOptions, explainer: ExplainerOptions, how: Annotated[RunOptions, Without("source", "scores")]
) -> None:
    """What the latents with the largest head weights stand for, explained by an endpoint, recorded answers or planted concepts."""
    run([EXPERIMENTS["features"]], asked.chosen, how, explainer.endpoint)


def run_ablation(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option("--name", help=" | ".join(ablation_names()))],
    asked: AskedWholeOptions,
    how: RunOptions,
) -> None:
    """One component taken away, beside the full model."""
    if name not in ablation_names():
        raise unknown("ablation", name, ablation_names())
    _run_or_rebuild(context, [ablation(name)], asked, how)


def run_sweep(
    context: typer.Context,
    *,
    axis: Annotated[str, typer.Option("--axis", help="layer | dim | k")],
    values: Annotated[str, typer.Option("--values", help="In the paper's units, comma-separated; all printed ones without it.")] = "",
    asked: AskedWholeOptions,
    how: RunOptions,
) -> None:
    """SAE layer, width or sparsity."""
    _run_or_rebuild(context, [_sweep(axis, values)], asked, how)


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


def _run_or_rebuild(
    context: typer.Context,
    experiments: Sequence[Experiment],
    asked: ExperimentOptions,
    how: RunOptions,
    *,
    part: PartOptions = WHOLE,
    endpoint: Endpoint = NOBODY,
    steer: Path | None = None,
) -> None:
    """Run, or with `--from scores` rebuild the tables. Raises UsageProblems for options that do not go together."""
    if how.source == "scores":
        rebuild_tables(context, experiments, scores=how.scores, out=how.out, full=how.full)
        return
    if how.scores is not None:
        raise UsageProblems(["--scores is read only with --from scores"])
    given = [*(asked.assignments or ()), *part.assignments]
    chosen = replace(asked, source=how.source, assignments=given).chosen
    run(experiments, chosen.model_copy(update={"steering": read_steering_file(steer) if steer is not None else None}), how, endpoint)


def settings_of(
    experiments: Sequence[Experiment], chosen: Chosen, store: ArtifactStore, *, fresh: bool, endpoint: Endpoint = NOBODY
) -> list[Setting]:
    """The settings of a command; with `fresh` one attempt number for all, so that experiments go on sharing their work."""
    run = f"{' '.join(one.name for one in experiments)} {chosen.model_dump_json(exclude_none=True)}"
    settings = [with_endpoint(one, endpoint, store, run=run) for one in settings_for(experiments, chosen, store, os.environ)]
    if not fresh:
        return settings
    from replication.plan import steps  # noqa: PLC0415 - rich and the estimates are not needed by --help

    attempt = max(steps.fresh(setting, store).attempt for setting in settings)
    return [replace(setting, attempt=attempt) for setting in settings]


def run(experiments: Sequence[Experiment], chosen: Chosen, how: RunOptions, endpoint: Endpoint) -> None:
    """Do what is missing and render; exits with the launcher's code. Under Slurm what is missing is submitted."""
    from replication import pipeline  # noqa: PLC0415 - rendering and statistics are not needed by --help
    from replication.cli.running import closing, progress  # noqa: PLC0415 - rendering and statistics are not needed by --help
    from replication.plan import steps  # noqa: PLC0415 - rendering and statistics are not needed by --help

    if how.offline:
        _no_network()
    artifacts = ArtifactStore(how.store)
    settings = settings_of(experiments, chosen, artifacts, fresh=how.fresh, endpoint=endpoint)
    steps.refuse_unpinned(settings)
    planned = _permitted_plan(settings, artifacts, how)
    refuse_other_addresses(planned.recipes, endpoint, artifacts)
    launcher = _launcher(how, planned.cluster, how.workers or max(one.profile.workers for one in settings))
    if how.launcher == "print":
        with progress.watching(len(planned.todo)) as watch:
            raise typer.Exit(launcher.launch(planned.todo, artifacts, watch))
    _announce(planned, how)
    expected = {step.job.key: Expected(step.job.kind, step.cost.cpu_seconds) for step in planned.steps if step.action != "reuse"}
    with progress.watching(len(planned.todo), expected) as watch:
        outcome = pipeline.replicate(settings, artifacts, launcher, watch=watch, rendered=how.out, command=typed_command(), planned=planned)
    closing.show(outcome.reports if not outcome.code else (), full=how.full)
    if not outcome.started:
        typer.echo("all jobs were reused from the store", err=True)
    for line in closing.files_and_next(outcome, how, chosen):
        typer.echo(line, err=True)
    raise typer.Exit(outcome.code)


def _permitted_plan(settings: Sequence[Setting], artifacts: ArtifactStore, how: RunOptions) -> Plan:
    """The plan where it would run, with its warnings on stderr. Raises for what cannot fit, run or be repeated."""
    from replication.plan import machine, refusals, steps  # noqa: PLC0415 - not needed by --help

    cluster = None if how.launcher == "local" else cluster_for(how.cluster, settings)
    planned = steps.plan(settings, artifacts, cluster)
    for warning in planned.warnings:
        typer.echo(f"warning: {warning}", err=True)
    where = machine.this_machine(os.environ.get("CUDA_VISIBLE_DEVICES")) if cluster is None else machine.machine_of(cluster)
    refusals.refuse(planned, where, allow_dirty=how.allow_dirty, offline=how.offline)
    if not steps.brought_in(planned.steps):
        # Everything is here: no job has a reason to ask the hub, and none may hang on it.
        _no_network()
    return planned


def cluster_for(name: str, settings: Sequence[Setting]) -> Cluster:
    """A cluster by name or file, with what `--set` says of it. Raises UsageProblems."""
    from replication.settings.clusters import load_cluster, yielding_to_overrides  # noqa: PLC0415 - not needed by --help

    return yielding_to_overrides(load_cluster(name), settings[0].overrides)


def _no_network() -> None:
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def _announce(planned: Plan, how: RunOptions) -> None:
    """What will run, and the question whether to start where it will take long here."""
    from replication.cli.running.closing import say  # noqa: PLC0415 - as above
    from replication.plan.view import announcement  # noqa: PLC0415 - not needed by --help

    if not planned.todo:
        return
    say(announcement(planned))
    _confirm(planned.cost.cpu_seconds, yes=how.yes or how.launcher == "slurm" or any(job.resources.gpus for job in planned.todo))


def _launcher(how: RunOptions, cluster: Cluster | None, workers: int) -> Launcher:
    from replication.launch.local import LocalLauncher  # noqa: PLC0415 - not needed by --help

    here = LocalLauncher(command=typed_command(), keep_going=how.keep_going, workers=workers)
    if cluster is None:
        return here
    from replication.launch.slurm.submission import PrintLauncher, SlurmLauncher  # noqa: PLC0415 - as above

    if how.launcher == "print":
        return PrintLauncher(command=typed_command(), cluster=cluster)
    return SlurmLauncher(command=typed_command(), cluster=cluster, here=here)


def _confirm(seconds: float, *, yes: bool) -> None:
    if not yes and seconds > LONG_RUN_SECONDS and sys.stdin.isatty():
        typer.confirm(f"this may take {seconds / 3600:,.0f} hours on this machine; start?", abort=True, err=True)


def _registered() -> dict[str, Callable[..., None]]:
    others = [one for one in EXPERIMENTS.values() if one.name != "features"]
    return {one.name: _run_command([one], f"{one.title}: run what is missing, then render.") for one in others}


COMMANDS: Mapping[str, Callable[..., None]] = {
    "features": explain_features,
    **_registered(),
    ALL: _run_command(list(EXPERIMENTS.values()), "Every experiment of the registry."),
    "ablation": run_ablation,
    "sweep": run_sweep,
}
