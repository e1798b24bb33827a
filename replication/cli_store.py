"""Commands on the store and the machine: status, logs, verify, doctor, store."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from replication.problems import UsageProblems
from replication.run_options import ALL, DEFAULT_STORE, Chosen, JsonOption, StoreOption, experiments_named, settings_for
from sarm.artifacts import ArtifactStore, MissingArtifact
from sarm.config_related import SAEExportConfig
from sarm.job import KEY_LENGTH, IntegrityProblem, Job

WATCH_SECONDS = 2.0
FOLLOW_SECONDS = 0.5

store_app = typer.Typer(help="Artifacts: list, gc, export, import, export-sae.", no_args_is_help=True, rich_markup_mode=None)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Say it again every two seconds until Ctrl-C.")] = False,
    as_json: JsonOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """What runs, what was interrupted, what is done."""
    place = ArtifactStore(store)
    while True:
        unfinished = [
            {
                "kind": work.folder.parent.parent.name,
                "key": work.key[:KEY_LENGTH],
                "state": "running" if work.running else "interrupted",
                "checkpoint": bool(work.checkpoint_time),
            }
            for work in place.staging.all()
        ]
        done = place.entries()
        if as_json:
            typer.echo(json.dumps({"unfinished": unfinished, "done": len(done)}))
        else:
            for one in unfinished:
                typer.echo(f"{one['state']:<12}{one['key']}  " + ("with a checkpoint" if one["checkpoint"] else "no checkpoint yet"))
            typer.echo(f"{len(done)} artifacts done, {len(unfinished)} unfinished")
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


def logs(
    job: Annotated[str, typer.Argument(help="Key of a job or its first digits, as plan shows it.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the log grows, until Ctrl-C.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """The log of a job, running or done."""
    path = _log_of(ArtifactStore(store), job.rpartition("/")[2].rpartition("-")[2])
    with path.open(encoding="utf-8", errors="replace") as lines:
        while True:
            for line in lines:
                typer.echo(line, nl=False)
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _log_of(store: ArtifactStore, key: str) -> Path:
    """The one log whose job's key begins so. Raises MissingArtifact, or UsageProblems when there are several."""
    running = [work.folder / "log.txt" for work in store.staging.all() if work.key.startswith(key)]
    kept = sorted((store.root / ".logs").glob(f"*-{key[:KEY_LENGTH]}*.txt"))
    found = [path for path in running or kept if path.is_file()]
    if not found:
        raise MissingArtifact(f"no log of a job {key!r} in {store.root}; see: replicate status, replicate store list")
    if len({path.stem for path in found}) > 1 and not running:
        raise UsageProblems([f"{key!r} fits several jobs: {', '.join(path.stem for path in found)}; give more digits"])
    return found[0]


def verify(
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file again.")] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Store against manifests. Exit code 6 when something is wrong."""
    place = ArtifactStore(store)
    problems = place.problems(deep)
    if problems:
        raise IntegrityProblem("\n".join(problems))
    typer.echo(f"{len(place.entries())} artifacts are what their manifests say")


def doctor(as_json: JsonOption = False, store: StoreOption = DEFAULT_STORE) -> None:
    """What this machine has."""
    from replication.doctor import examine  # noqa: PLC0415 - not needed by --help

    found = examine(store.absolute())
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in found], indent=2))
    else:
        for one in found:
            typer.echo(f"{'ok' if one.fine else '--':<4}{one.name:<18}{one.found}" + (f"; {one.hint}" if one.hint else ""))


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
def collect_garbage(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keep_profile: Annotated[
        list[str] | None, typer.Option("--keep-profile", help="Also drop whole artifacts that no experiment of these profiles needs.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove corrupt artifacts and leftovers of dead processes; interrupted work of kept jobs stays."""
    place = ArtifactStore(store)
    keep = _needed(place, keep_profile) if keep_profile else _all_keys(place)
    going = place.gc(keep, dry_run)
    for folder, size in going:
        typer.echo(f"{size / 1e6:>9.1f} MB  {folder.relative_to(place.root)}")
    typer.echo(f"{len(going)} folders, {sum(size for _, size in going) / 1e6:.1f} MB {'would go' if dry_run else 'removed'}", err=True)


def _all_keys(store: ArtifactStore) -> set[str]:
    return {one.key for one in store.entries()} | {work.key for work in store.staging.all()}


def _needed(store: ArtifactStore, profiles: list[str]) -> set[str]:
    """Keys of every job of every experiment and protocol on these profiles, with any attempt that is there."""
    from replication.protocols import PROTOCOLS  # noqa: PLC0415 - not needed by --help
    from replication.recipes import recipe  # noqa: PLC0415 - as above
    from sarm.job import topological_order  # noqa: PLC0415 - as above

    keys: set[str] = set()
    for profile in profiles:
        for protocol in PROTOCOLS:
            settings = settings_for(experiments_named([ALL]), Chosen(profile=profile, protocol=protocol), store, os.environ)
            keys |= {job.key for setting in settings for job in topological_order(recipe(setting).jobs)}
    return keys


@store_app.command("export")
def export_artifacts(
    archive: Annotated[Path, typer.Argument(help="The .tar.gz to write.")],
    keys: Annotated[list[str] | None, typer.Option("--key", help="Only artifacts whose key begins so; repeatable.")] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Pack artifacts into one archive."""
    place = ArtifactStore(store)
    wanted = [one.key for one in place.entries() if not keys or any(one.key.startswith(key) for key in keys)]
    idle = [key for key in keys or [] if not any(one.startswith(key) for one in wanted)]
    if idle:
        raise UsageProblems([f"--key {key}: no artifact's key begins so; see: replicate store list" for key in idle])
    typer.echo(f"{len(place.export(wanted, archive))} artifacts in {archive}", err=True)


@store_app.command("import")
def import_artifacts(
    archive: Annotated[Path, typer.Argument(help="A .tar.gz that `store export` wrote.", exists=True, dir_okay=False)],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take in the artifacts of an archive; all are verified before the first one enters."""
    new = ArtifactStore(store).import_archive(archive)
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
    from replication.cli_files import run_alone  # noqa: PLC0415 - not needed by --help

    place = ArtifactStore(store)
    folder = _sae_folder(place, sae)
    if out.exists():
        raise UsageProblems([f"--out {out} exists; name a folder that does not"])
    config = SAEExportConfig(sae_digest=place.fingerprint(folder), layout=layout, model_name=model_name)
    job = Job(config=config, locations={"sae": str(folder)}, label=f"{layout} files of SAE {sae}")
    run_alone(job, place)
    shutil.copytree(place.path(job), out, ignore=shutil.ignore_patterns("manifest.json", "export.json"))
    first = json.loads((place.path(job) / "export.json").read_text(encoding="utf-8"))["normalize_first"]
    if first != "none":
        typer.echo(f"{layout} has no input normalisation: hand it hidden states after {first!r} (sarm.sparse_encoder.normalized)", err=True)
    typer.echo(str(out))


def _sae_folder(place: ArtifactStore, sae: str) -> Path:
    """The one SAE of that key, or the folder. Raises UsageProblems where there is none or several."""
    if (Path(sae) / "sae.json").is_file():
        return Path(sae).resolve()
    found = [one for one in place.entries() if one.kind == "train_sae" and one.key.startswith(sae)]
    if len(found) != 1:
        many = f"fits {len(found)} SAEs; give more digits" if found else "is no folder with a sae.json and no key of an SAE"
        raise UsageProblems([f"{sae!r} {many}; see: replicate store list"])
    return (place.root / "train_sae" / found[0].short_key).resolve()


COMMANDS: Mapping[str, Callable[..., None]] = {"status": status, "logs": logs, "verify": verify, "doctor": doctor}
