"""Commands that tell of experiments and start nothing: list, show, plan."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import typer

from replication.cli.options.declared import (
    DEFAULT_STORE,
    AllowDirtyOption,
    ExperimentArgument,
    ExperimentOptions,
    ExperimentsArgument,
    FreshOption,
    FromOption,
    JsonOption,
    ProfileOption,
    ProtocolOption,
    RowsOption,
    SetOption,
    StoreOption,
)
from replication.cli.running.experiment_text import field_text, registry_text, values_text
from replication.cli.running.runs import cluster_for, settings_of
from replication.recipes.requested import experiment_named, experiments_named, settings_for
from sarm.store.artifacts import ArtifactStore


def list_experiments(
    kind: Annotated[
        Literal["table", "ablation", "sweep", "figure", "features", "claim"] | None, typer.Option("--kind", help="Only this kind.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Experiments of the registry, or the paper's claims."""
    typer.echo(registry_text(kind, as_json=as_json))


def show(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    experiment: ExperimentArgument,
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
    chosen = ExperimentOptions(profile=profile, protocol=protocol, rows=rows, assignments=assignments, source=source).chosen
    (setting,) = settings_for([experiment_named(experiment)], chosen, ArtifactStore(store), os.environ)
    typer.echo(field_text(setting, field) if field else values_text(setting, as_json=as_json))


def plan(
    *,
    experiments: ExperimentsArgument,
    asked: ExperimentOptions,
    cluster: Annotated[str, typer.Option("--cluster", help="a100, rtx3090, or a TOML file: its cards and resources.")] = "",
    measured: Annotated[bool, typer.Option("--measured", help="Predicted beside measured, for the jobs that are done.")] = False,
    fresh: FreshOption = False,
    allow_dirty: AllowDirtyOption = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """What a run would do: each job, why it runs or is reused, and what it costs. Starts nothing."""
    from replication.plan import calibration, machine, refusals, steps, view  # noqa: PLC0415 - not needed by --help
    from replication.terminal.console import console_for  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    settings = settings_of(experiments_named(experiments), asked.chosen, artifacts, fresh=fresh)
    where = cluster_for(cluster, settings) if cluster else None
    planned = steps.plan(settings, artifacts, where)
    console = console_for(sys.stdout)
    if measured:
        threads = _threads(max(one.setting.profile.workers for one in planned.recipes))
        found = calibration.compared(planned, artifacts, threads=threads)
        if as_json:
            typer.echo(json.dumps([{**one.model_dump(), "ratio": one.ratio} for one in found], indent=2))
        else:
            view.measured_table(found, console)
        return
    where_to_run = machine.machine_of(where) if where else None
    refused = [str(problem) for problem in refusals.problems(planned, where_to_run, allow_dirty=allow_dirty)]
    if as_json:
        typer.echo(json.dumps({**view.values(planned), "refused": refused}, indent=2))
        return
    view.plan_table(planned, console)
    for line in (*planned.warnings, *(f"a launch refuses: {one}" for one in refused)):
        typer.echo(f"warning: {line}", err=True)


def _threads(workers: int) -> int:
    """Threads that a job without a number of its own has here: what the shell says, or its share of the cores."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else max(1, (os.cpu_count() or 1) // workers)


COMMANDS: Mapping[str, Callable[..., None]] = {"list": list_experiments, "show": show, "plan": plan}
