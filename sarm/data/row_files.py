"""Rows of local files, JSONL or Parquet, alone or in a folder, each with its place. What cannot be read is refused by its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from sarm.data.preferences import DataError
from sarm.data.sources import Place, Row
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.json_lines import count_rows, read_lines

DATA_FILES = (".jsonl", ".json", ".parquet")
DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
# What files and folders are called that hold one split: `train-00000-of-00001.parquet`, `data/test.jsonl`, `validation/part-0.jsonl`.
SPLIT = re.compile(r"(?:^|[/_.-])(train|training|test|testing|validation|valid|val|dev|eval|evaluation)(?=[/_.-])")
SPLIT_NAMES = {"training": "train", "testing": "test", "eval": "evaluation", **dict.fromkeys(("valid", "val", "dev"), "validation")}


class RawRows(NamedTuple):
    """Rows with their places, and how many there will be (for the progress display only)."""

    total: int
    rows: Iterable[tuple[Place, Row]]


def local_rows(source: Path | None) -> RawRows:
    """Rows of a file, or of the files of a folder that hold one split. Raises EnvironmentProblem where there is none, UsageProblem."""
    if source is None or not source.exists():
        raise EnvironmentProblem(
            f"source.path: {source or 'no path given'} does not exist; mend the path in the profile or put the data there"
        )
    files = _data_files(source) if source.is_dir() else [source]
    if not files:
        raise EnvironmentProblem(f"source.path: {source} holds no {', '.join(DATA_FILES)} file; put the data there")
    _one_split(source, files)
    parts = [_file_rows(path, _within(source, path)) for path in files]
    return RawRows(sum(part.total for part in parts), (row for part in parts for row in part.rows))


def _one_split(source: Path, files: Sequence[Path]) -> None:
    """Raises UsageProblem for a folder whose files are named after several splits: held-out rows must not become training pairs."""
    splits: dict[str, str] = {}
    for path in files:
        found = SPLIT.search(path.relative_to(source).as_posix().lower()) if path != source else None
        if found:
            splits.setdefault(SPLIT_NAMES.get(found[1], found[1]), path.relative_to(source).as_posix())
    if len(splits) > 1:
        told = ", ".join(f"{split} ({file})" for split, file in sorted(splits.items()))
        raise UsageProblem(f"source.path: {source.name} holds several splits: {told}; name one file, or a folder with one split")


def _within(source: Path, path: Path) -> str:
    """The name of a file inside the folders below the one that was given, without its suffix; empty for a file at its top."""
    return path.relative_to(source).with_suffix("").as_posix() if path.parent not in (source, source.parent) else ""


def _data_files(folder: Path) -> list[Path]:
    """Files with rows, sorted by name; hidden ones and the hub's descriptions are none."""
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.suffix in DATA_FILES and path.is_file()}
    hidden = {name for name in names if name.name in DESCRIPTIONS or any(part.startswith(".") for part in name.parts)}
    return [names[name] for name in sorted(names) if name not in hidden]


def _file_rows(path: Path, within: str) -> RawRows:
    if path.suffix == ".parquet":
        table = pyarrow.parquet.ParquetFile(path)
        numbered = enumerate((row for batch in table.iter_batches() for row in batch.to_pylist()), start=1)
        return RawRows(table.metadata.num_rows, (_placed(path, within, number, row) for number, row in numbered))
    return RawRows(count_rows(path), (_placed(path, within, number, row) for number, row in read_lines(path)))


def _placed(path: Path, within: str, number: int, row: Any) -> tuple[Place, Row]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: row: is no object with keys; give one object a row")
    return Place(str(path), number, within), row
