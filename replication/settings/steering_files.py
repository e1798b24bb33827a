"""Steering files, as `replicate demo` saves them and as people write them: read and checked before anything runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sarm.config.steering import SCHEMA_VERSION, HeadEdit, SteeringFile
from sarm.job import IntegrityProblem, UsageProblem
from sarm.store.json_files import place_of, read_object

CURE = "save it again with: replicate demo --model DIR"


def read_steering_file(path: Path) -> HeadEdit:
    """The edit in a file. Raises UsageProblem that names file and key for a missing file, and for what is no steering file;
    IntegrityProblem for one of another shape."""
    if not path.is_file():
        raise UsageProblem(f"--steer {path}: no such file; {CURE}")
    content = read_object(path, cure=CURE)
    version = content.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise IntegrityProblem(f"--steer {place_of(path)}: schema_version {version!r}, and this program reads {SCHEMA_VERSION!r}; {CURE}")
    try:
        return SteeringFile.model_validate(content).edit
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]") or "file"
        raise UsageProblem(f"--steer {place_of(path)}: {key}: {first['msg'].removeprefix('Value error, ')}; mend it, or {CURE}") from error
