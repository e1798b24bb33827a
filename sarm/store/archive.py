"""Artifacts packed into one `.tar.gz`: the same artifacts always give the same bytes."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from sarm.job import KEY_LENGTH, IntegrityProblem
from sarm.store.artifacts import ArtifactStore, MissingArtifact
from sarm.store.checksums import files_below
from sarm.store.manifest import Manifest, is_inside
from sarm.store.verification import damage, read_manifest
from sarm.store.whole_files import whole_file


def export_archive(store: ArtifactStore, keys: Iterable[str] | Literal["all"], archive: Path) -> list[Manifest]:
    """Pack artifacts (full keys, or all) into a `.tar.gz`. Raises MissingArtifact, IntegrityProblem or EnvironmentProblem."""
    there = {manifest.key: manifest for manifest in store.entries()}
    wanted = list(there) if keys == "all" else list(dict.fromkeys(keys))
    for key in wanted:
        if key not in there:
            raise MissingArtifact(f"MissingArtifact: {key[:KEY_LENGTH]} is not in the store; see: replicate store list")
    folders = {key: store.find(there[key].kind, key, label=there[key].label) for key in wanted}
    with store.reporting_full_disk():
        _pack([(f"{there[key].kind}/{there[key].short_key}", folder) for key, folder in folders.items()], archive)
    return [there[key] for key in wanted]


def import_archive(store: ArtifactStore, archive: Path) -> list[Manifest]:
    """Take in the artifacts of an archive that are not here yet; all are verified before the first one enters.

    Raises IntegrityProblem for an unsafe or damaged archive, EnvironmentProblem on a full disk.
    """
    with store.reporting_full_disk(), store.staging.scratch() as place:
        checked = [(folder, _checked(folder)) for folder in _unpack(archive, place)]
        new = [(folder, manifest) for folder, manifest in checked if not store.present_or_set_aside(manifest)]
        for folder, manifest in new:
            store.publish(folder, manifest)
    return [manifest for _, manifest in new]


def _checked(folder: Path) -> Manifest:
    name = f"{folder.parent.name}/{folder.name}"
    manifest = read_manifest(folder)
    if isinstance(manifest, str):
        raise IntegrityProblem(f"{name} in the archive: {manifest}; nothing was imported")
    if (manifest.kind, manifest.short_key) != (folder.parent.name, folder.name) or not manifest.key_fits:
        raise IntegrityProblem(f"{name} in the archive: its manifest does not fit its key; nothing was imported")
    found, _ = damage(folder, manifest, {})
    if found:
        raise IntegrityProblem(f"{name} in the archive: {found}; nothing was imported")
    return manifest


def _pack(folders: Iterable[tuple[str, Path]], archive: Path) -> None:
    """Write an archive of (name in the archive, folder) pairs; it appears whole or not at all. Raises OSError."""
    with (
        whole_file(archive) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, folder in sorted(folders):
            for file in files_below(folder):
                _add(tar, folder / file, f"{name}/{file}")


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    # Only name, size and bytes: owner, group and times would name the user and change from export to export.
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    member.mode = 0o644
    with path.open("rb") as content:
        tar.addfile(member, content)


def _unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack into an empty folder; gives the artifact folders `<kind>/<short key>` that came out, sorted.

    Raises IntegrityProblem for anything but regular files `<kind>/<short key>/...` inside the folder, and for a broken archive.
    """
    found: set[Path] = set()
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for member in tar:
                if member.isdir() and is_inside(member.name):
                    continue
                found.add(_extract(tar, member, folder))
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityProblem(f"{archive.name} is not a whole .tar.gz archive ({error}); export it again") from error
    return sorted(found)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Path:
    parts = member.name.split("/")
    if not is_inside(member.name) or len(parts) < 3 or parts[0].startswith("."):
        raise IntegrityProblem(f"archive member {member.name!r} is not <kind>/<key>/<file>; nothing was imported")
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise IntegrityProblem(f"archive member {member.name!r} is a link or a device; nothing was imported")
    path = folder / member.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" refuses a second member of the same name.
        out = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise IntegrityProblem(f"archive member {member.name!r} stands on another member's place; nothing was imported") from error
    with content, out:
        shutil.copyfileobj(content, out, 1 << 20)
    return folder / parts[0] / parts[1]
