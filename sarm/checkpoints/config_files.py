"""JSON objects beside weights: a model's `config.json`, an SAE's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sarm.job import UsageProblem

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UsageProblem for a file that is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblem(f"{path.parent.name}/{path.name}: not JSON ({error}); fetch it again") from error
    if not isinstance(raw, dict):
        raise UsageProblem(f"{path.parent.name}/{path.name}: a JSON object is expected; fetch it again")
    return raw


def checked_settings(path: Path, kind: type[Settings]) -> Settings:
    """A JSON object of known keys. Raises UsageProblem that names a key that is absent or wrong."""
    try:
        return kind.model_validate(read_settings(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "object"
        raise UsageProblem(f"{path.parent.name}/{path.name}: {key}: {first['msg']}; make or fetch it again") from error
