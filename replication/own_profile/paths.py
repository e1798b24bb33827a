"""How a profile names a file: from its own folder, by a variable or by `~`, never by somebody's home folder or name."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from replication.usage_problems import UsageProblems

# Above whose folders a relative path would name them again.
ABOVE_HOMES = ("/", "/home", "/Users")
HOMES = re.compile(r"/(?:home|Users)/[^/]+|/root(?:/|$)")
VARIABLE = "${"


class Named(NamedTuple):
    """A path as a profile writes it, and the variable that must be set for it; empty for none."""

    text: str
    variable: str = ""


class Reader(NamedTuple):
    """Whose profile it is, and where it lies."""

    folder: Path
    home: str
    user: str
    data: str

    @classmethod
    def of(cls, folder: Path, environment: Mapping[str, str]) -> Reader:
        """This user, in this process's environment."""
        return cls(folder.resolve(), environment.get("HOME", ""), _user(), environment.get("SARM_DATA", ""))


def named(path: Path, reader: Reader, *, variable: str) -> Named:
    """The first of: relative to the profile's folder, below SARM_DATA, below `~`, absolute; else by `variable`, which the user sets.

    Raises UsageProblems for a name that a profile cannot hold.
    """
    real = str(path.absolute().parent.resolve() / path.name) if path.name not in ("", ".", "..") else str(path.resolve())
    if VARIABLE in real or not _is_text(real):
        raise UsageProblems([f"{real!r}: a profile cannot name this path (it is no UTF-8, or holds '${{'); rename or link it"])
    for text in _candidates(real, reader):
        if text:
            return Named(text)
    return Named(f"${{{variable}}}", variable)


def _candidates(real: str, reader: Reader) -> list[str]:
    return [_relative(real, reader), _below(real, reader.data, "${SARM_DATA}"), _below_home(real, reader), _absolute(real, reader)]


def _relative(real: str, reader: Reader) -> str:
    folder = str(reader.folder)
    common = os.path.commonpath([real, folder])
    text = os.path.relpath(real, folder)
    climbs = text.startswith("..")
    if climbs and (common in ABOVE_HOMES or common == str(Path(reader.home or "/").parent) or reader.user in Path(text).parts):
        return ""
    # `~` at its beginning would be read as a home.
    return "" if text.startswith("~") else text


def _below(real: str, folder: str, name: str) -> str:
    if not folder:
        return ""
    inside = os.path.relpath(real, Path(folder).resolve())
    return "" if inside.startswith("..") else f"{name}/{inside}"


def _below_home(real: str, reader: Reader) -> str:
    return _below(real, reader.home, "~") if reader.home.strip("/") else ""


def _absolute(real: str, reader: Reader) -> str:
    return "" if HOMES.match(real) or reader.user in Path(real).parts else real


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    # Without an entry for this user id there is no name to hide.
    except (OSError, KeyError):
        return ""
