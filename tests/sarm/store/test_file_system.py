"""What a store needs of its file system: found here, and told where one does not do it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sarm.store.file_system import CHECKS, shortcomings

REAL = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "open", "utime")}


def problems(folder: Path) -> list[str]:
    return [one.problem for one in shortcomings(folder)]


def test_this_file_system_does_all_and_keeps_nothing(tmp_path: Path) -> None:
    assert shortcomings(tmp_path) == [] and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory here")
def test_one_in_memory_does_too() -> None:
    assert shortcomings(Path("/dev/shm")) == []


def failing(number: int) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def fsync_of_files_alone(descriptor: int) -> None:
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.EINVAL, "Invalid argument")
    REAL["fsync"](descriptor)


def merging_rename(source: Any, target: Any) -> None:
    """A file system that lets a folder take the place of a full one."""
    if os.path.isdir(target):
        REAL["rename"](target, f"{target}-gone")
    REAL["rename"](source, target)


def rename_never_over_a_folder(source: Any, target: Any) -> None:
    if os.path.isdir(target):
        raise FileExistsError(errno.EEXIST, "File exists")
    REAL["rename"](source, target)


def rename_fails_unknown(source: Any, target: Any) -> None:
    if os.path.isdir(target):
        raise PermissionError(errno.EACCES, "Permission denied")
    REAL["rename"](source, target)


def rename_fails_when_open(source: Any, target: Any) -> None:
    if os.path.exists(os.path.join(source, "log.txt")):
        raise OSError(errno.EBUSY, "Device or resource busy")
    REAL["rename"](source, target)


def copying_replace(source: Any, target: Any) -> None:
    """A rename that is a copy: two names at once."""
    Path(target).write_bytes(Path(source).read_bytes())


def careless_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
    return int(REAL["open"](path, flags & ~os.O_EXCL, *arguments, **options))


def late_utime(path: Any, times: Any = None, **options: Any) -> None:
    REAL["utime"](path, times or (1000, 1000), **options)


@pytest.mark.parametrize(("instead", "told", "bearable"), [
    (("fsync", failing(errno.ENOTSUP)), ["a file cannot be flushed", "a folder cannot be flushed"], True),
    (("fsync", fsync_of_files_alone), ["a folder cannot be flushed to the disk (fsync is not supported)"], True),
    (("fsync", failing(errno.EIO)), ["a file cannot be flushed", "a folder cannot be flushed", "a file cannot be replaced"], False),
    (("rename", merging_rename), ["a claim by renaming a folder is not exclusive (a folder was renamed onto one"], False),
    (("rename", rename_never_over_a_folder), ["a folder cannot take the place of an empty one (File exists)"], True),
    (("rename", rename_fails_unknown), ["a claim by renaming a folder", "a folder cannot take the place"], False),
    (("rename", rename_fails_when_open), ["a folder with an open file cannot be renamed (Device or resource busy)"], False),
    (("replace", copying_replace), ["a file cannot be replaced by a rename (the old content stays, or a second name)"], False),
    (("open", careless_open), ["a new file is not exclusive"], False),
    (("utime", late_utime), ["times of files cannot be compared"], False),
], ids=["no fsync", "no fsync of folders", "a broken disk", "merging folders", "no empty slot", "unknown refusals", "open files", "copies",
        "no exclusive names", "wrong times"])  # fmt: skip
def test_what_a_file_system_does_not_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: tuple[str, Callable[..., Any]], told: list[str], bearable: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, *instead)
        found = shortcomings(tmp_path)
    assert len(found) == len(told) and all(one.problem.startswith(text) for one, text in zip(found, told, strict=True)), found
    assert all(one.bearable for one in found) == bearable and all(one.consequence for one in found)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", failing(errno.EROFS))
    (found,) = shortcomings(tmp_path)
    assert found.problem == "cannot be written (Read-only file system)" and not found.bearable and "--store" in found.consequence


def test_every_check_has_its_words() -> None:
    assert len({problem for _, problem, _, _ in CHECKS}) == len(CHECKS)
