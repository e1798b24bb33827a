"""Commands on the store and the machine: status, logs, verify, doctor, store."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from replication.cli.options.declared import DEFAULT_STORE, JsonOption, StoreOption
from replication.recipes.requested import ALL, Chosen, experiments_named, settings_for
from replication.usage_problems import UsageProblems
from sarm.config.weights import SAEExportConfig
from sarm.job import EnvironmentProblem, IntegrityProblem, Job
from sarm.store.archive import export_archive, import_archive
from sarm.store.artifacts import ArtifactStore, MissingArtifact
from sarm.store.garbage import collect_garbage
from sarm.store.json_files import read_facts

WATCH_SECONDS = 2.0
# Slurm is shared: nobody should poll it faster.
SLURM_WATCH_SECONDS = 30.0
FOLLOW_SECONDS = 0.5

store_app = typer.Typer(help="Artifacts: list, gc, export, import, export-sae.", no_args_is_help=True, rich_markup_mode=None)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Say it again until Ctrl-C: every two seconds, with Slurm every thirty.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """What runs, waits, was interrupted, is done: Slurm and the store, job by job."""
    from replication.launch.slurm.calls import Slurm  # noqa: PLC0415 - not needed by --help
    from replication.launch.status import status_lines, store_status  # noqa: PLC0415 - as above

    artifacts = ArtifactStore(store)
    while True:
        found = store_status(artifacts, Slurm())
        if as_json:
            typer.echo(found.model_dump_json())
        else:
            for line in status_lines(found):
                typer.echo(line)
        if found.silent:
            typer.echo(f"warning: {found.silent}; what follows from Slurm is not known", err=True)
        if not watch:
            return
        time.sleep(SLURM_WATCH_SECONDS if found.submitted or found.silent else WATCH_SECONDS)


def logs(
    job: Annotated[str, typer.Argument(help="Key of a job or its first digits, as plan shows it, or a Slurm id.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the logs grow, until Ctrl-C.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The logs of a job, running or done: its own, then what its batch script said."""
    from replication.launch.status import logs_of  # noqa: PLC0415 - not needed by --help

    paths = logs_of(ArtifactStore(store), job)
    with ExitStack() as files:
        opened = [(path, files.enter_context(path.open(encoding="utf-8", errors="replace"))) for path in paths]
        shown: Path | None = None
        while True:
            for path, content in opened:
                for line in content:
                    if path != shown and len(paths) > 1:
                        typer.echo(f"==> {path} <==")
                    shown = path
                    typer.echo(line, nl=False)
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def verify(
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file again.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Store against manifests and lock file. Exit code 6 when something is wrong."""
    from replication.lock_files import lock_problems  # noqa: PLC0415 - not needed by --help

    artifacts = ArtifactStore(store)
    problems = [*artifacts.problems(deep), *lock_problems(artifacts)]
    if problems:
        raise IntegrityProblem("\n".join(problems))
    _refuse_empty(artifacts)
    typer.echo(f"{len(artifacts.entries())} artifacts are what their manifests say")


def _refuse_empty(artifacts: ArtifactStore) -> None:
    """Raises MissingArtifact (5) for a store in which nothing is: a mistyped folder is not one in which all is well."""
    if not artifacts.entries():
        there = "has no artifacts" if artifacts.root.is_dir() else "has no artifacts: there is no such folder"
        raise MissingArtifact(f"{artifacts.root} {there}; name the store with --store (or SARM_STORE)")


def doctor(
    cluster: Annotated[str, typer.Option("--cluster", help="Compare this cluster's description with its Slurm.")] = "",
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """What this machine has. Exit code 7 when something that is needed is missing."""
    from replication.cli.doctor import examine  # noqa: PLC0415 - not needed by --help
    from replication.settings.clusters import load_cluster  # noqa: PLC0415 - as above

    found = examine(store.absolute(), load_cluster(cluster) if cluster else None)
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in found], indent=2))
    else:
        for one in found:
            typer.echo(f"{'ok' if one.fine else '--':<4}{one.name:<18}{one.found}" + (f"; {one.hint}" if one.hint else ""))
    if not all(one.fine for one in found):
        raise typer.Exit(EnvironmentProblem.exit_code)


@store_app.command("list")
def list_artifacts(as_json: JsonOption = False, store: StoreOption = DEFAULT_STORE) -> None:
    """Artifacts that are there."""
    entries = ArtifactStore(store).entries()
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json", exclude={"files", "packages"}) for one in entries], indent=2))
        return
    for one in entries:
        typer.echo(f"{one.kind:<20}{one.short_key}  {one.bytes / 1e6:>9.1f} MB  {one.seconds:>8.1f} s  {one.label}")
    typer.echo(f"{len(entries)} artifacts, {sum(one.bytes for one in entries) / 1e6:.1f} MB", err=True)


@store_app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keep_profile: Annotated[
        list[str] | None, typer.Option("--keep-profile", help="Also drop whole artifacts that no experiment of these profiles needs.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove corrupt artifacts and leftovers of dead processes; interrupted work of kept jobs stays."""
    artifacts = ArtifactStore(store)
    keep = _needed(artifacts, keep_profile) if keep_profile else _all_keys(artifacts)
    going = collect_garbage(artifacts, keep, dry_run=dry_run)
    for folder, size in going:
        typer.echo(f"{size / 1e6:>9.1f} MB  {folder.relative_to(artifacts.root)}")
    typer.echo(f"{len(going)} folders, {sum(size for _, size in going) / 1e6:.1f} MB {'would go' if dry_run else 'removed'}", err=True)


def _all_keys(store: ArtifactStore) -> set[str]:
    return {one.key for one in store.entries()} | {work.key for work in store.staging.all()}


def _needed(store: ArtifactStore, profiles: list[str]) -> set[str]:
    """Keys of every job of every experiment and protocol on these profiles, with any attempt that is there."""
    from replication.recipes.jobs_needed import recipe  # noqa: PLC0415 - as above
    from replication.settings.protocols import PROTOCOLS  # noqa: PLC0415 - not needed by --help
    from sarm.job import topological_order  # noqa: PLC0415 - as above

    keys: set[str] = set()
    for profile in profiles:
        for protocol in PROTOCOLS:
            settings = settings_for(experiments_named([ALL]), Chosen(profile=profile, protocol=protocol), store, os.environ)
            keys |= {job.key for setting in settings for job in topological_order(recipe(setting).jobs)}
    # No experiment asks for explored latents; they are worth keeping as long as their model is.
    explored = [one for one in store.entries() if one.kind == "explore_latents" and "model" in one.inputs]
    return keys | {one.key for one in explored if one.inputs["model"][1] in keys}


@store_app.command("export")
def export_artifacts(
    archive: Annotated[Path, typer.Argument(help="The .tar.gz to write.")],
    keys: Annotated[list[str] | None, typer.Option("--key", help="Only artifacts whose key begins so; repeatable.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Pack artifacts into one archive."""
    artifacts = ArtifactStore(store)
    _refuse_empty(artifacts)
    wanted = [one.key for one in artifacts.entries() if not keys or any(one.key.startswith(key) for key in keys)]
    idle = [key for key in keys or [] if not any(one.startswith(key) for one in wanted)]
    if idle:
        raise UsageProblems([f"--key {key}: no artifact's key begins so; see: replicate store list" for key in idle])
    typer.echo(f"{len(export_archive(artifacts, wanted, archive))} artifacts in {archive}", err=True)


@store_app.command("import")
def import_artifacts(
    archive: Annotated[Path, typer.Argument(help="A .tar.gz that `store export` wrote.", exists=True, dir_okay=False)],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take in the artifacts of an archive; all are verified before the first one enters."""
    new = import_archive(ArtifactStore(store), archive)
    typer.echo(f"{len(new)} new artifacts", err=True)


@store_app.command("export-sae")
def export_sae(
    sae: Annotated[str, typer.Argument(help="Key of a train_sae artifact or its first digits, or the folder of an SAE.")],
    layout: Annotated[Literal["sae-lens", "sparsify"], typer.Option("--layout", help="Whose files to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist.")],
    model_name: Annotated[str, typer.Option("--model-name", help="Backbone that SAELens is to name.")] = "unknown",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """An SAE of ours as files that SAELens or sparsify opens. Runs as a job."""
    from replication.cli.files import run_alone  # noqa: PLC0415 - not needed by --help

    artifacts = ArtifactStore(store)
    folder = _sae_folder(artifacts, sae)
    if out.exists():
        raise UsageProblems([f"--out {out} exists; name a folder that does not"])
    config = SAEExportConfig(sae_digest=artifacts.fingerprint(folder), layout=layout, model_name=model_name)
    job = Job(config=config, locations={"sae": str(folder)}, label=f"{layout} files of SAE {sae}")
    run_alone(job, artifacts)
    shutil.copytree(artifacts.path(job), out, ignore=shutil.ignore_patterns("manifest.json", "export.json"))
    first = read_facts(artifacts.path(job) / "export.json", "normalize_first")["normalize_first"]
    if first != "none":
        how = f"hidden states after {first!r} (sarm.sae.sparse_encoder.normalized)"
        typer.echo(f"{layout} has no input normalisation: hand it {how}", err=True)
    typer.echo(str(out))


def _sae_folder(artifacts: ArtifactStore, sae: str) -> Path:
    """The one SAE of that key, or the folder. Raises UsageProblems where there is none or several."""
    if (Path(sae) / "sae.json").is_file():
        return Path(sae).resolve()
    found = [one for one in artifacts.entries() if one.kind == "train_sae" and one.key.startswith(sae)]
    if len(found) != 1:
        many = f"fits {len(found)} SAEs; give more digits" if found else "is no folder with a sae.json and no key of an SAE"
        raise UsageProblems([f"{sae!r} {many}; see: replicate store list"])
    return (artifacts.root / "train_sae" / found[0].short_key).resolve()


COMMANDS: Mapping[str, Callable[..., None]] = {"status": status, "logs": logs, "verify": verify, "doctor": doctor}
