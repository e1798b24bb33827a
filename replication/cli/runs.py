"""What every run command does: plan, refuse, confirm, launch, render."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from replication.recipes.requested import Chosen, settings_for
from replication.recipes.setting import Setting
from replication.settings.experiments import Experiment
from replication.settings.judges import Judging, Mode, judges_matching, judges_named
from replication.settings.profiles import BenchmarkName
from replication.usage_problems import UsageProblems
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from replication.launch.interface import Launcher
    from replication.plan.steps import Plan
    from replication.settings.clusters import Cluster

LONG_RUN_SECONDS = 2 * 3600
ENDPOINT_FILE = ".endpoint.json"

LauncherName = Literal["local", "slurm", "print"]
OutOption = Annotated[Path, typer.Option("--out", help="Rendered tables go to a folder of the profile's name below this one.")]
KeepGoingOption = Annotated[bool, typer.Option("--keep-going", help="After a failure go on with jobs that do not need it.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never ask the hub: what is not in its cache is missing.")]
LauncherOption = Annotated[LauncherName, typer.Option("--launcher", help="Run here, submit to Slurm, or print the scripts.")]
ClusterOption = Annotated[str, typer.Option("--cluster", help="a100, rtx3090, or a TOML file of your own; for slurm and print.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=0, help="Local processes side by side; 0: as the profile says.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Start long runs without asking.")]
ApiBaseOption = Annotated[str, typer.Option("--api-base", help="OpenAI-compatible endpoint that explains latents, up to /v1.")]
KeyOption = Annotated[str, typer.Option("--api-key-env", help="Environment variable with its key; empty for a server without keys.")]
CostOption = Annotated[float, typer.Option("--max-cost", min=0, help="Most US dollars the explanations may cost.")]
AnswersOption = Annotated[Path | None, typer.Option("--answers", help="Recorded answers (answers.json of an earlier run) instead.")]


@dataclass(frozen=True)
class Endpoint:
    """Who explains latents or judges a benchmark, as asked for on the command line; `api_base` and `answers` empty for nobody.

    `judges` are NAME or NAME=MODEL, `judge_model` renames the only one; `limits` are further fields of `EndpointSettings`.
    """

    api_base: str = ""
    key_variable: str = "OPENAI_API_KEY"
    max_cost: float = 5.0
    answers: Path | None = None
    judges: tuple[str, ...] = ()
    judge_model: str = ""
    modes: tuple[Mode, ...] = ("ranking",)
    benchmarks: tuple[BenchmarkName, ...] = ("rewardbench2",)
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class How:
    """Where and how a run goes on; nothing here changes a number."""

    store: Path
    out: Path
    keep_going: bool = False
    fresh: bool = False
    offline: bool = False
    launcher: LauncherName = "local"
    cluster: str = "a100"
    yes: bool = False
    allow_dirty: bool = False
    endpoint: Endpoint = Endpoint()
    workers: int = 0


def typed_command() -> str:
    """What the user typed, to be shown as the command that resumes."""
    return shlex.join(["replicate", *sys.argv[1:]])


def settings_of(
    experiments: Sequence[Experiment], chosen: Chosen, store: ArtifactStore, *, fresh: bool, endpoint: Endpoint | None = None
) -> list[Setting]:
    """The settings of a command; with `fresh` one attempt number for all, so that experiments go on sharing their work."""
    settings = [_with_endpoint(one, endpoint or Endpoint(), store) for one in settings_for(experiments, chosen, store, os.environ)]
    if not fresh:
        return settings
    from replication.plan import steps  # noqa: PLC0415 - rich and the estimates are not needed by --help

    attempt = max(steps.fresh(setting, store).attempt for setting in settings)
    return [replace(setting, attempt=attempt) for setting in settings]


def run(experiments: Sequence[Experiment], chosen: Chosen, how: How) -> None:
    """Do what is missing and render; exits with the launcher's code. Under Slurm what is missing is submitted."""
    from replication import pipeline  # noqa: PLC0415 - rendering and statistics are not needed by --help
    from replication.cli import progress  # noqa: PLC0415 - rendering and statistics are not needed by --help
    from replication.plan import steps  # noqa: PLC0415 - rendering and statistics are not needed by --help

    if how.offline:
        _no_network()
    place = ArtifactStore(how.store)
    settings = settings_of(experiments, chosen, place, fresh=how.fresh, endpoint=how.endpoint)
    steps.refuse_unpinned(settings)
    planned = _permitted_plan(settings, place, how)
    launcher = _launcher(how, planned.cluster, how.workers or max(one.profile.workers for one in settings))
    if how.launcher == "print":
        with progress.watching(len(planned.todo)) as watch:
            raise typer.Exit(launcher.launch(planned.todo, place, watch))
    _announce(planned, how)
    with progress.watching(len(planned.todo)) as watch:
        outcome = pipeline.replicate(settings, place, launcher, watch=watch, rendered=how.out, command=typed_command(), planned=planned)
    console = progress.console_for(sys.stdout)
    for report in outcome.reports if not outcome.code else ():
        console.print(pipeline.terminal(report))
    if not outcome.started:
        typer.echo("all jobs were reused from the store", err=True)
    typer.echo(f"tables: {', '.join(str(path) for path in outcome.files if path.suffix == '.md')} (and tex, html, json, csv)", err=True)
    raise typer.Exit(outcome.code)


def _permitted_plan(settings: Sequence[Setting], place: ArtifactStore, how: How) -> Plan:
    """The plan where it would run, with its warnings on stderr. Raises for what cannot fit, run or be repeated."""
    from replication.plan import refusals, steps  # noqa: PLC0415 - not needed by --help

    cluster = None if how.launcher == "local" else _cluster(how.cluster, settings)
    planned = steps.plan(settings, place, cluster)
    for warning in planned.warnings:
        typer.echo(f"warning: {warning}", err=True)
    machine = refusals.this_machine() if cluster is None else refusals.machine_of(cluster)
    refusals.refuse(planned, machine, allow_dirty=how.allow_dirty, offline=how.offline)
    if not steps.brought_in(planned.steps):
        # Everything is here: no job has a reason to ask the hub, and none may hang on it.
        _no_network()
    return planned


def _cluster(name: str, settings: Sequence[Setting]) -> Cluster:
    from replication.settings.clusters import load_cluster, yielding  # noqa: PLC0415 - not needed by --help

    return yielding(load_cluster(name), settings[0].overrides)


def _no_network() -> None:
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def _announce(planned: Plan, how: How) -> None:
    """What will run, and the question whether to start where it will take long here."""
    from replication.plan.view import summary  # noqa: PLC0415 - not needed by --help

    if not planned.todo:
        return
    for line in summary(planned):
        typer.echo(line, err=True)
    _confirm(planned.cost.cpu_seconds, yes=how.yes or how.launcher == "slurm" or any(job.resources.gpus for job in planned.todo))


def show_plan(
    experiments: Sequence[Experiment], chosen: Chosen, *, store: Path, cluster: str, measured: bool, fresh: bool, as_json: bool
) -> None:
    """A plan on stdout, with its warnings and what a launch would refuse on stderr."""
    from replication.cli import progress  # noqa: PLC0415 - not needed by --help
    from replication.plan import calibration, refusals, steps, view  # noqa: PLC0415 - not needed by --help

    place = ArtifactStore(store)
    settings = settings_of(experiments, chosen, place, fresh=fresh)
    where = _cluster(cluster, settings) if cluster else None
    planned = steps.plan(settings, place, where)
    console = progress.console_for(sys.stdout)
    if measured:
        threads = _threads(max(one.setting.profile.workers for one in planned.recipes))
        found = calibration.compared(planned, place, threads=threads)
        if as_json:
            typer.echo(json.dumps([{**one.model_dump(), "ratio": one.ratio} for one in found], indent=2))
        else:
            view.measured_table(found, console)
        return
    machine = refusals.machine_of(where) if where else None
    refused = [str(problem) for problem in refusals.problems(planned, machine, allow_dirty=False)]
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


def _launcher(how: How, cluster: Cluster | None, workers: int) -> Launcher:
    from replication.launch.local import LocalLauncher  # noqa: PLC0415 - not needed by --help

    here = LocalLauncher(command=typed_command(), keep_going=how.keep_going, workers=workers)
    if cluster is None:
        return here
    from replication.launch.slurm.submission import PrintLauncher, SlurmLauncher  # noqa: PLC0415 - as above

    if how.launcher == "print":
        return PrintLauncher(command=typed_command(), cluster=cluster)
    return SlurmLauncher(command=typed_command(), cluster=cluster, here=here)


def _with_endpoint(setting: Setting, endpoint: Endpoint, place: ArtifactStore) -> Setting:
    """The setting with who is asked. The endpoint's settings lie in the store: a job reads them from a file; no key is in it."""
    setting = replace(setting, judging=_judging(setting, endpoint)) if setting.experiment.judges else setting
    if endpoint.api_base and endpoint.answers:
        raise UsageProblems(["--api-base and --answers exclude each other: ask an endpoint, or read what one has answered"])
    if endpoint.answers:
        if not endpoint.answers.is_file():
            raise UsageProblems([f"--answers {endpoint.answers} does not exist"])
        return replace(setting, answers=str(endpoint.answers.resolve()))
    if not endpoint.api_base:
        return setting
    file = place.root.resolve() / ENDPOINT_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {"api_base": endpoint.api_base, "key_variable": endpoint.key_variable, "max_cost": endpoint.max_cost}
    values |= endpoint.limits
    file.write_text(json.dumps(values) + "\n", encoding="utf-8")
    return replace(setting, endpoint=str(file))


def _judging(setting: Setting, endpoint: Endpoint) -> Judging:
    """The judges of `--judge`, or where an endpoint is given those that `--rows` names. Raises UsageProblems."""
    registered = setting.experiment.judges
    reachable = bool(endpoint.api_base or endpoint.answers)
    asked = judges_named(endpoint.judges, registered) or judges_matching(setting.rows, registered)
    problems = []
    if reachable and not asked:
        names = ", ".join(row.name for row in registered)
        problems.append(f"an endpoint or answers without a judge; give --judge NAME ({names}) or --judge NAME=MODEL for one of your own")
    if len(asked) != 1 and endpoint.judge_model:
        problems.append(f"--judge-model {endpoint.judge_model}: {len(asked)} judges are asked; name each with --judge NAME=MODEL")
    if len(asked) > 1 and endpoint.answers:
        problems.append(f"--answers {endpoint.answers.name}: the answers are of one judge, {len(asked)} are asked; name one with --judge")
    if problems:
        raise UsageProblems(problems)
    if endpoint.judge_model:
        asked = tuple(row.model_copy(update={"model": endpoint.judge_model}) for row in asked)
    return Judging(asked=asked, modes=endpoint.modes, benchmarks=endpoint.benchmarks)


def _confirm(seconds: float, *, yes: bool) -> None:
    if not yes and seconds > LONG_RUN_SECONDS and sys.stdin.isatty():
        typer.confirm(f"this may take {seconds / 3600:,.0f} hours on this machine; start?", abort=True, err=True)
