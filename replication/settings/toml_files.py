"""TOML files that are named: those that come with the package, or any file of the user's."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replication.usage_problems import UsageProblems, unknown


def read_toml(what: str, name_or_file: str, shipped: Mapping[str, Path]) -> tuple[Path, dict[str, Any]]:
    """The file of that name or path, UTF-8 with or without its mark, and what it holds; `what` says what it describes.

    Raises UsageProblems.
    """
    path = shipped.get(name_or_file, Path(name_or_file))
    if not path.is_file():
        if path.suffix == ".toml":
            raise UsageProblems([f"no such {what} file: {path}"])
        raise unknown(f"{what} (or TOML file)", name_or_file, shipped)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8-sig"), parse_float=_finite)
    # A number of thousands of digits is a plain ValueError, nesting without an end a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageProblems([f"{path}: not a TOML file: {str(error).splitlines()[0]}"]) from error


def _finite(written: str) -> float:
    """A number as written in TOML, where `inf`, `nan` and what is too large for a float are no size, rate or limit of anything."""
    value = float(written)
    if not math.isfinite(value):
        raise ValueError(f"{written} is no finite number")
    return value
