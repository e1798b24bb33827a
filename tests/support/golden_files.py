"""The numbers of the official implementations in `SARM_GOLDENS` (default `../shared/goldens`).

A test holds for every folder that keeps the promises of the READMEs there: names, shapes and meanings. It assumes no size, seed, number of
cases or value, and looks every file, tensor and case up by its name, so that a name that nothing computes fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
from folders import GOLDENS
from safetensors.torch import load_file
from torch import Tensor


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where this file or folder of the goldens is absent."""
    path = GOLDENS / name
    return pytest.mark.skipif(not path.exists(), reason=f"no goldens at {path}; set SARM_GOLDENS")


needs_sarm = needs("sarm")


def read(name: str) -> Any:
    """The content of a golden JSON file."""
    return json.loads((GOLDENS / name).read_text(encoding="utf-8"))


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """The tensors of a golden file by name. Do not change them: they are read once."""
    return load_file(GOLDENS / name)


def each(name: str, entries: Callable[[str], Iterable[Any]], *, id_of: Callable[[Any], str] = str) -> list[Any]:
    """One parameter of a test for each of a file's entries; one that is skipped with the reason where the file is absent."""
    if not (GOLDENS / name).exists():
        return [pytest.param(None, marks=needs(name), id="absent")]
    return [pytest.param(entry, id=id_of(entry)) for entry in entries(name)]


def close(ours: Tensor, theirs: Tensor) -> None:
    """1e-4 relative or absolute, as the README suggests for forward passes."""
    torch.testing.assert_close(ours.detach().to(theirs.dtype), theirs, rtol=1e-4, atol=1e-4)
