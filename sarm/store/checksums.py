"""What bytes are on disk: SHA-256 of files and folders, and stamps that tell whether a file was touched since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sarm.job import UsageProblem


class FileStamp(NamedTuple):
    """What the file system says of a file; equal stamps mean that it was not written in between."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp(path: Path) -> FileStamp:
    """The stamp of a file, links followed. Raises FileNotFoundError."""
    found = path.stat()
    return FileStamp(size=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns, inode=found.st_ino)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[str]:
    """POSIX names, relative to the folder and sorted, of all files and links below it; links to folders are not entered."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in files + links]
    return sorted(found)


def fingerprint(path: Path, digest: Callable[[Path], str] = sha256_of) -> str:
    """SHA-256 of a file; of a folder, over the sorted relative names and the SHA-256 of each file, links to files followed.

    Names with a leading dot (`.git`, `.cache`) are left out. `digest` may be a cached `sha256_of`.
    Raises UsageProblem when the path does not exist, the folder holds no file, or a link in it leads nowhere or to a folder.
    """
    if path.is_file():
        return digest(path)
    if not path.is_dir():
        raise UsageProblem(f"{path} does not exist; give the path of a file or folder")
    names = [name for name in files_below(path) if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise UsageProblem(f"{path} holds no files; give the path of a file or of a folder with files")
    linked = [name for name in names if (path / name).is_dir()]
    if linked:
        raise UsageProblem(f"{path / linked[0]} is a link to a folder; give the path of a folder that holds its own files")
    # A half-moved cache of the hub is full of them.
    gone = next((name for name in names if not (path / name).exists()), None)
    if gone is not None:
        raise UsageProblem(f"{path / gone} is a link that leads to no file; bring the file, or remove the link")
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\0{digest(path / name)}\n".encode())
    return total.hexdigest()
