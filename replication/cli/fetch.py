"""The command that brings in what a run needs from the hub, for a machine with a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from replication.cli.options.declared import DEFAULT_STORE, PaperOptions, StoreOption, typed_command
from replication.cli.options.groups import Without
from replication.recipes.jobs import hub_weights
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.recipes.setting import Setting
from replication.settings.profiles import UNKNOWN_REVISION, HubBackbone, TokenizerChanges, pin_name
from replication.usage_problems import UsageProblems
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore


def fetch(
    *,
    experiments: Annotated[list[str] | None, typer.Argument(help="Names of experiments, or all.")] = None,
    model: Annotated[str, typer.Option("--model", help="OWNER/NAME[@REVISION]: this model alone, as it is, for replicate init.")] = "",
    asked: Annotated[PaperOptions, Without("seeds")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Pin hub revisions, then bring weights and data into the store: for a machine with a network."""
    if bool(experiments) == bool(model):
        raise UsageProblems(["replicate fetch: give names of experiments (or all), or --model OWNER/NAME; one of the two"])
    artifacts = ArtifactStore(store)
    if model:
        _fetch_model(hub_model(model), artifacts, dry_run=dry_run)
        return
    named = experiments or []
    settings = _settings(named, asked.chosen, artifacts)
    if dry_run:
        _say_what_would_come(settings, artifacts)
        return
    from replication.hub_fetch import fetch_planned, pin  # noqa: PLC0415 - huggingface_hub is not needed by --help
    from replication.plan.steps import brought_in, plan  # noqa: PLC0415 - as above
    from replication.recipes.jobs_needed import hub_sources_of, unsized_weights  # noqa: PLC0415 - as above

    for repository, commit in pin([one for setting in settings for one in hub_sources_of(setting)], artifacts).items():
        typer.echo(f"{repository} pinned to {commit}", err=True)
    settings = _settings(named, asked.chosen, artifacts)
    # What else is needed cannot be planned before their sizes are known.
    _bring([job for setting in settings for job in unsized_weights(setting)], artifacts)
    planned = plan(_settings(named, asked.chosen, artifacts), artifacts)
    from replication.cli.running.progress import watching  # noqa: PLC0415 - as above

    with watching(len(brought_in(planned.steps))) as watch:
        code = fetch_planned(planned, artifacts, watch=watch, command=typed_command())
    if not code:
        typer.echo("all is in the store, at the commits of revisions.json and with the checksums of fetched.json", err=True)
    raise typer.Exit(code)


def hub_model(text: str) -> HubBackbone:
    """`OWNER/NAME` or `OWNER/NAME@REVISION`. Raises UsageProblems for anything else."""
    repository, _, revision = text.partition("@")
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name or any(sign.isspace() for sign in repository):
        raise UsageProblems([f"--model {text}: is no folder here and no OWNER/NAME of the hub; give one of the two"])
    return HubBackbone(kind="hub", repository=repository, revision=revision or UNKNOWN_REVISION)


def pinned(source: HubBackbone, pins: Mapping[str, str]) -> HubBackbone:
    """The model at the commit to which its revision is pinned; as it is where it is not."""
    return source.model_copy(update={"revision": pins.get(pin_name(source.repository, source.revision), source.revision)})


def plain_weights(source: HubBackbone) -> Job:
    """The job that fetches a hub model as it is, without changes to its tokenizer."""
    return Job(hub_weights(source, TokenizerChanges()), label=f"model {source.repository}")


def _settings(named: Sequence[str], chosen: Chosen, artifacts: ArtifactStore) -> list[Setting]:
    return settings_for(experiments_named(named), chosen, artifacts, os.environ)


def _fetch_model(source: HubBackbone, artifacts: ArtifactStore, *, dry_run: bool) -> None:
    from replication.hub_fetch import pin  # noqa: PLC0415 - huggingface_hub is not needed by --help
    from replication.lock_files import read_pins  # noqa: PLC0415 - as above

    if dry_run:
        known = pinned(source, read_pins(artifacts))
        typer.echo(f"fetch_weights model {known.repository} at {known.revision}")
        return
    pin([(source, "model")], artifacts)
    known = pinned(source, read_pins(artifacts))
    _bring([plain_weights(known)], artifacts)
    typer.echo(f"{known.repository} is in the store, at commit {known.revision}", err=True)


def _bring(jobs: Sequence[Job], artifacts: ArtifactStore) -> None:
    """Run jobs that fetch and lock what came; exits with the launcher's code where it fails."""
    from replication.cli.running.progress import watching  # noqa: PLC0415 - not needed by --help
    from replication.launch.local import LocalLauncher  # noqa: PLC0415 - as above
    from replication.lock_files import lock_fetched  # noqa: PLC0415 - as above

    todo = [job for job in dict.fromkeys(jobs) if not artifacts.has(job)]
    if not todo:
        return
    with watching(len(todo)) as watch:
        code = LocalLauncher(command=typed_command(), keep_going=True).launch(todo, artifacts, watch)
    lock_fetched(artifacts, [job for job in todo if artifacts.has(job)])
    if code:
        raise typer.Exit(code)


def _say_what_would_come(settings: Sequence[Setting], artifacts: ArtifactStore) -> None:
    from replication.hub_fetch import downloads  # noqa: PLC0415 - huggingface_hub is not needed by --help
    from replication.plan.steps import plan  # noqa: PLC0415 - as above
    from replication.recipes.jobs_needed import hub_sources_of, unsized_weights  # noqa: PLC0415 - as above
    from replication.settings.profiles import unpinned_of  # noqa: PLC0415 - as above

    sources = [one for setting in settings for one in hub_sources_of(setting)]
    for repository, what in unpinned_of(sources):
        typer.echo(f"pin {what} {repository}")
    for repository in dict.fromkeys(one.repository for one, _ in sources if one.gated):
        typer.echo(f"{repository} is gated: accept its licence on the hub and set HF_TOKEN", err=True)
    first = list(dict.fromkeys(job for setting in settings for job in unsized_weights(setting)))
    if first:
        for job in first:
            typer.echo(f"{job.kind} {job.label} ({job.short_key})")
        typer.echo("what else would come depends on sizes that are known once these are here", err=True)
        return
    planned = plan(settings, artifacts)
    for line in downloads([planned]):
        typer.echo(line)
    typer.echo(f"{planned.cost.download_gb:.1f} GB to download (as far as sizes are known)", err=True)


COMMANDS: Mapping[str, Callable[..., None]] = {"fetch": fetch}
