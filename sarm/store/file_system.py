"""What a store needs of its file system, tried out: flushing, renames that are whole and exclusive, times that can be compared.

A store claims work by renaming folders and takes no file lock (`staging`), so locks are not asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sarm.store.staging import SILENCE_SECONDS
from sarm.store.whole_files import sync, write_whole

ANOTHER = "choose another file system with --store or SARM_STORE"
LOST = "what was written last may be lost in a power cut; it is made again"


class Shortcoming(NamedTuple):
    """Something that a file system does not do, and what follows; `bearable` where results are right all the same."""

    problem: str
    consequence: str
    bearable: bool


class _Lacking(Exception):
    """A check found a file system that does not do what is asked, and says how."""


def shortcomings(folder: Path) -> list[Shortcoming]:
    """What the file system under a folder lacks for a store; empty where nothing does. What is written for it is removed again."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".probe-", dir=folder))
    except OSError as error:
        return [Shortcoming(f"cannot be written ({error.strerror})", ANOTHER, bearable=False)]
    try:
        return [found for name, check in enumerate(CHECKS) if (found := _tried(place / str(name), *check)) is not None]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _tried(place: Path, check: Callable[[Path], None], problem: str, consequence: str, bearable: bool) -> Shortcoming | None:
    try:
        place.mkdir()
        check(place)
    except _Lacking as lacking:
        return Shortcoming(f"{problem} ({lacking})", consequence, bearable)
    except OSError as error:
        return Shortcoming(f"{problem} ({error.strerror or type(error).__name__})", consequence, bearable)
    return None


def _files_are_flushed(place: Path) -> None:
    (place / "file").write_bytes(b"x")
    if not sync(place / "file"):
        raise _Lacking("fsync is not supported")


def _folders_are_flushed(place: Path) -> None:
    if not sync(place):
        raise _Lacking("fsync is not supported")


def _files_are_replaced(place: Path) -> None:
    write_whole(place / "file", "old")
    write_whole(place / "file", "new")
    if (place / "file").read_bytes() != b"new" or len(list(place.iterdir())) != 1:
        raise _Lacking("the old content stays, or a second name")


def _names_are_exclusive(place: Path) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(place / "file", flags))
    with contextlib.suppress(FileExistsError):
        os.close(os.open(place / "file", flags))
        raise _Lacking("a file that is there was made a second time")


def _prepared(place: Path, name: str) -> Path:
    (place / name / "owner").mkdir(parents=True)
    (place / name / "owner" / "heartbeat").write_bytes(name.encode())
    return place / name


def _claims_are_exclusive(place: Path) -> None:
    _prepared(place, "first").rename(place / "slot")
    second = _prepared(place, "second")
    try:
        second.rename(place / "slot")
    except OSError as error:
        # What a store understands as "occupied"; anything else would end the job.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        raise _Lacking("a folder was renamed onto one that is not empty")
    if (place / "slot" / "owner" / "heartbeat").read_bytes() != b"first":
        raise _Lacking("the second claim took the first one's place")


def _empty_slots_are_entered(place: Path) -> None:
    (place / "slot").mkdir()
    _prepared(place, "first").rename(place / "slot")


def _folders_in_use_are_renamed(place: Path) -> None:
    folder = _prepared(place, "first")
    with (folder / "log.txt").open("w") as log:
        log.write("before")
        log.flush()
        folder.rename(place / "other")
        log.write(" and after")
    if folder.exists() or (place / "other" / "log.txt").read_text() != "before and after":
        raise _Lacking("the folder is still there, or its log lost a line")


def _times_can_be_compared(place: Path) -> None:
    beat = place / "heartbeat"
    beat.touch()
    os.utime(beat, (0, 0))
    os.utime(beat)
    (place / "probe").write_bytes(b"x")
    behind = (place / "probe").stat().st_mtime - beat.stat().st_mtime
    if abs(behind) > SILENCE_SECONDS / 4:
        raise _Lacking(f"a file touched now seems {behind:.0f} s old")


CHECKS: tuple[tuple[Callable[[Path], None], str, str, bool], ...] = (
    (_files_are_flushed, "a file cannot be flushed to the disk", LOST, True),
    (_folders_are_flushed, "a folder cannot be flushed to the disk", LOST, True),
    (_files_are_replaced, "a file cannot be replaced by a rename", f"half a file might be read; {ANOTHER}", False),
    (_names_are_exclusive, "a new file is not exclusive", f"two processes might write one file; {ANOTHER}", False),
    (_claims_are_exclusive, "a claim by renaming a folder is not exclusive", f"two processes might do one job; {ANOTHER}", False),
    (_empty_slots_are_entered, "a folder cannot take the place of an empty one",
     "a kill at one moment leaves an empty folder below .staging, to be removed by hand", True),
    (_folders_in_use_are_renamed, "a folder with an open file cannot be renamed", f"stopped work cannot be taken over; {ANOTHER}", False),
    (_times_can_be_compared, "times of files cannot be compared", f"living processes might be taken for dead; {ANOTHER}", False),
)  # fmt: skip
