"""Artifacts packed into one `.tar.gz`: the same artifacts always give the same bytes."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from sarm.job import IntegrityProblem
from sarm.store.checksums import files_below
from sarm.store.manifest import is_inside
from sarm.store.whole_files import whole_file


def pack(folders: Iterable[tuple[str, Path]], archive: Path) -> None:
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


def unpack(archive: Path, folder: Path) -> list[Path]:
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
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    # "x" refuses a second member of the same name.
    with content, path.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    return folder / parts[0] / parts[1]
