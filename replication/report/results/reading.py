"""Reads results.json and the rewards beside it. What cannot be trusted is refused in one line, and never judged."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from replication.report.cells import Cell, Report
from replication.report.measurements import Measured, Scored, scored_file
from replication.report.results.model import SCHEMA_VERSION, ResultFile, RewardFile
from replication.report.results.score_files import read_rewards
from sarm.data.preferences import DataError, ScoredPreference, read_jsonl
from sarm.store.checksums import sha256_of
from sarm.store.json_lines import parsed
from sarm.store.manifest import is_inside

Model = TypeVar("Model", bound=BaseModel)
USAGE, MISSING, INTEGRITY = 2, 5, 6
WRONG_NUMBER = ("float_", "int_", "finite_number", "greater_than", "less_than")


class ResultsError(ValueError):
    """A results file that cannot be trusted: names the file, the place and what is wrong. No verdict is given.

    `exit_code` is 6 (checksum, schema, revision) unless the content is wrong (2) or incomplete (5).
    """

    def __init__(self, message: str, *, exit_code: int = INTEGRITY) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, UTF-8 with or without its mark. Raises ResultsError, also where a key stands twice."""
    try:
        data = parsed(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: no such file", exit_code=USAGE) from error
    except IsADirectoryError as error:
        raise ResultsError(f"{path}: is a folder; name a results file in it", exit_code=USAGE) from error
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror or error})", exit_code=USAGE) from error
    # A key that stands twice or a number of thousands of digits is a plain ValueError, nesting without an end a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: not JSON ({error}); save it again as it was written") from error
    if not isinstance(data, dict):
        raise ResultsError(f"{path}: a results file is one JSON object")
    return data


def validated(model: type[Model], data: Mapping[str, Any], path: Path) -> Model:
    """The object as a model, numbers strictly numbers. Raises ResultsError: 2 for a value of the wrong type, else 6."""
    try:
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        found = error.errors()
        numbers = [one for one in found if one["type"].startswith(WRONG_NUMBER)]
        lines = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}, got {str(one['input'])[:40]!r}" for one in numbers or found]
        raise ResultsError(f"{path}: {'; '.join(lines[:5])}", exit_code=USAGE if numbers else INTEGRITY) from error


def read_results(path: Path) -> ResultFile:
    """A results.json of ours. Raises ResultsError: 6 for another schema, 2 for text where a number belongs."""
    data = read_object(path)
    version = data.get("schema_version")
    if not isinstance(version, str) or version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ResultsError(f"{path}: schema_version {version!r}; this version of replicate reads {SCHEMA_VERSION.partition('.')[0]}.x")
    return validated(ResultFile, data, path)


def rebuilt(found: ResultFile, folder: Path) -> Report:
    """The report with every number computed anew from the rewards in `folder`; verdicts are still the old ones.

    Raises ResultsError (2, 5 or 6) and DataError for rewards that are not what results.json says.
    """
    if not found.rewards:
        raise ResultsError(f"{folder}: the results of {found.experiment} name no per-item rewards to rebuild from", exit_code=MISSING)
    measured = _measured(found, folder)
    places = {(one.table, one.row, one.column): one for one in found.metrics}
    absent = sorted({(one.model, one.benchmark) for one in found.metrics} - set(measured))
    if absent:
        raise ResultsError(f"{folder}: no rewards of {absent[0][0]} on {absent[0][1]}, which a table shows", exit_code=MISSING)
    tables = []
    for table in found.report.tables:
        rows = []
        for row in table.rows:
            cells = []
            for cell in row.cells:
                place = places.get((table.name, row.name, cell.column))
                cells.append(_measured_again(cell, measured[place.model, place.benchmark], place.name) if place else cell)
            rows.append(row.model_copy(update={"cells": tuple(cells)}))
        tables.append(table.model_copy(update={"rows": tuple(rows)}))
    return found.report.model_copy(update={"tables": tuple(tables)})


def _measured_again(cell: Cell, measured: Measured, name: str) -> Cell:
    ours = measured.measurement(name)
    if ours is None:
        return cell.model_copy(update={"ours": None, "verdict": "MISSING", "reason": measured.reason(name, {})})
    return cell.model_copy(update={"ours": ours})


def _measured(found: ResultFile, folder: Path) -> dict[tuple[str, str], Measured]:
    entries: dict[tuple[str, str], list[RewardFile]] = {}
    for one in found.rewards:
        entries.setdefault((one.model, one.benchmark), []).append(one)
    for (model, benchmark), files in entries.items():
        seeds = tuple(one.seed for one in files)
        if seeds not in ((None,), found.seeds):
            raise ResultsError(f"{folder}: rewards of {model} on {benchmark} are of seeds {seeds}, not {found.seeds}", exit_code=MISSING)
    return {key: Measured(per_seed=tuple(_scored(one, folder) for one in files)) for key, files in entries.items()}


def _scored(one: RewardFile, folder: Path) -> Scored:
    path = folder / one.file
    if not is_inside(one.file) or not path.is_file():
        raise ResultsError(f"{path}: no such file of rewards; results.json names it, so copy it too", exit_code=MISSING)
    items = _checked_items(path, one)
    if items < one.items:
        raise ResultsError(f"{path}: {items:,} of {one.items:,} rows; the rest is missing", exit_code=MISSING)
    if items > one.items or sha256_of(path) != one.sha256:
        raise ResultsError(f"{path}: not the file that results.json describes ({items:,} rows, {one.items:,} stated; SHA-256 differs)")
    found = scored_file(path, one.benchmark)
    return Scored(metrics=found.metrics, missing=found.missing, artifact=one.artifact, truncated=found.truncated)


def _checked_items(path: Path, one: RewardFile) -> int:
    """How many items; each with its own id. Raises DataError."""
    if one.benchmark != "evaluation":
        return len(read_rewards(path, one.benchmark))
    seen: set[str] = set()
    count = 0
    for count, item in enumerate(read_jsonl(path, ScoredPreference), start=1):
        if item.id in seen:
            raise DataError(f"{path}:{count}: id: {item.id!r} is there twice; give each pair its own id")
        seen.add(item.id)
    return count
