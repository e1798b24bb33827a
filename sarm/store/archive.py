"""Artifacts packed into one `.tar.gz`: the same artifacts always give the same bytes."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from sarm.job import KEY_LENGTH, EnvironmentProblem, IntegrityProblem
from sarm.store.artifacts import ArtifactStore, MissingArtifact
from sarm.store.checksums import files_below
from sarm.store.manifest import MANIFEST_NAME, Manifest, is_inside
from sarm.store.verification import damage, read_manifest
from sarm.store.whole_files import whole_file

# An import leaves this much of the disk to others. Headers and manifests are smaller, and no store has as many files.
KEPT_FREE = 1 << 30
LARGEST_PIECE = 1 << 24
MOST_MEMBERS = 200_000


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
        try:
            checked = [(folder, _checked(folder)) for folder in _unpack(archive, place)]
        except IntegrityProblem as problem:
            # What is said of a member does not name the file that was given.
            raise IntegrityProblem(f"{archive.name}: {problem}") from problem
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


class _Unpacked(gzip.GzipFile):
    """What is packed, read in pieces: tarfile would take a header of any length into memory at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_PIECE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack into an empty folder; gives the artifact folders `<kind>/<short key>` that came out, sorted.

    Raises IntegrityProblem for anything but regular files `<kind>/<short key>/...` inside the folder, for what the archive's own
    manifests do not name with its size, for more than the disk has room for, and for a broken archive; EnvironmentProblem for no room.
    """
    found: set[Path] = set()
    try:
        # Read once without writing: what is refused leaves nothing behind, and nobody's disk is full in between.
        with _Unpacked(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            _look_over(tar, room=shutil.disk_usage(folder).free - KEPT_FREE, what=archive.name)
        with _Unpacked(archive) as packed, tarfile.open(fileobj=packed, mode="r:") as tar:
            for member in tar:
                if not member.isdir():
                    found.add(_extract(tar, member, folder))
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IntegrityProblem(f"not a whole .tar.gz archive ({error}); export it again") from error
    return sorted(found)


def _look_over(tar: tarfile.TarFile, *, room: int, what: str) -> None:
    """Whether the members are files of artifacts, each of the size that its artifact's manifest says, and fit into `room` bytes."""
    sizes: dict[str, int] = {}
    manifests: dict[str, Manifest] = {}
    folders: set[str] = set()
    total = 0
    for count, member in enumerate(tar, start=1):
        total += member.size
        if count > MOST_MEMBERS:
            raise IntegrityProblem(f"more than {MOST_MEMBERS:,} members; nothing was imported")
        if total > room:
            raise EnvironmentProblem(
                f"{what} unpacks to more than the {max(room, 0) / 1e9:.1f} GB that the store's disk can spare; make room, or export less"
            )
        if member.isdir() and is_inside(member.name):
            continue
        artifact = _artifact_of(member)
        above = {member.name.rsplit("/", cut)[0] for cut in range(1, member.name.count("/") + 1)}
        if member.name in sizes or member.name in folders or above & sizes.keys():
            raise IntegrityProblem(f"archive member {member.name!r} stands on another member's place; nothing was imported")
        folders |= above
        sizes[member.name] = member.size
        if member.name == f"{artifact}/{MANIFEST_NAME}":
            manifests[artifact] = _manifest_of(tar, member)
    for name, size in sizes.items():
        _require_said(name, size, manifests)


def _artifact_of(member: tarfile.TarInfo) -> str:
    """`<kind>/<short key>` of a member. Raises IntegrityProblem for another place, a link or a device."""
    parts = member.name.split("/")
    if not is_inside(member.name) or len(parts) < 3 or parts[0].startswith("."):
        raise IntegrityProblem(f"archive member {member.name!r} is not <kind>/<key>/<file>; nothing was imported")
    if not member.isreg():
        raise IntegrityProblem(f"archive member {member.name!r} is a link or a device; nothing was imported")
    return "/".join(parts[:2])


def _manifest_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest:
    content = tar.extractfile(member)
    if content is None or member.size > LARGEST_PIECE:
        raise IntegrityProblem(f"{member.name} in the archive has {member.size:,} bytes; nothing was imported")
    try:
        return Manifest.model_validate_json(content.read())
    except ValidationError as error:
        raise IntegrityProblem(
            f"{member.name} in the archive is not readable ({error.errors()[0]['msg']}); nothing was imported"
        ) from error


def _require_said(name: str, size: int, manifests: dict[str, Manifest]) -> None:
    """Raises IntegrityProblem for a file that the manifest beside it does not name, or names with another size."""
    kind, key, file = name.split("/", 2)
    manifest = manifests.get(f"{kind}/{key}")
    if manifest is None:
        raise IntegrityProblem(f"{kind}/{key} in the archive: {MANIFEST_NAME} is missing; nothing was imported")
    if file == MANIFEST_NAME:
        return
    said = manifest.files.get(file)
    if said is None:
        raise IntegrityProblem(f"{name} in the archive is not named in its {MANIFEST_NAME}; nothing was imported")
    if said.bytes != size:
        raise IntegrityProblem(f"{name} in the archive has {size:,} bytes instead of {said.bytes:,}; nothing was imported")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Path:
    content = tar.extractfile(member)
    assert content is not None
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    return folder / _artifact_of(member)
