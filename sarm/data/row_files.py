"""Rows of local files, JSONL or Parquet, alone or in a folder, each with its place. What cannot be read is refused by its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from sarm.data.preferences import DataError
from sarm.data.sources import Place, Row
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.json_lines import count_rows, read_lines

DATA_FILES = (".jsonl", ".ndjson", ".json", ".parquet")
DESCRIPTIONS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
# What else lies beside data and holds no rows: by what its name begins with, by its suffix, or a folder of a tool's own.
NO_DATA_NAMES = re.compile(
    r"(readme|licen[sc]e|copying|notice|citation|changelog|authors|contributing|code_of_conduct|security|requirements|makefile|dockerfile"
    r"|manifest|(sha\d+|md5)sums?|checksums?)(?![a-z])"
)
NO_DATA_SUFFIXES = frozenset(
    {".md", ".rst", ".html", ".htm", ".css", ".js", ".pdf", ".tex", ".bib", ".cff", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf"}
    | {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".tif", ".tiff", ".ico", ".wav", ".mp3", ".flac", ".ogg", ".mp4", ".webm"}
    | {".py", ".pyc", ".ipynb", ".sh", ".bat", ".r", ".jl", ".lock", ".log", ".sha1", ".sha256", ".sha512", ".md5", ".sig", ".asc", ".crc"}
)
NO_DATA_FOLDERS = frozenset({"__macosx", "__pycache__", "_delta_log"})
# What files and folders are called that hold one split: `train-00000-of-00001.parquet`, `data/test.jsonl`, `validation/part-0.jsonl`.
SPLIT = re.compile(
    r"(?<![a-z0-9])(train|training|test|testing|validation|valid|val|dev|eval|evaluation|held[_-]?out|hold[_-]?out)(?:sets?)?\d*(?![a-z0-9])"
)
SPLIT_NAMES = {
    "training": "train",
    "testing": "test",
    "eval": "evaluation",
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
    **dict.fromkeys((f"{verb}{between}out" for verb in ("held", "hold") for between in ("", "_", "-")), "held-out"),
}
# Splits that data sets hold side by side, one for each way of training: `train_prefs` and `train_sft` of UltraFeedback.
PURPOSE = re.compile(r"[_.-](prefs?|preferences?|sft|gen|generation|rm|reward|dpo|ppo|rl)(?![a-z])")
# A file that says that it is one of several; the hub puts the split's whole name before it and perhaps a checksum after it.
SHARD = re.compile(r"[-_.](\d+)[-_.]of[-_.](\d+)(?!\d)")
NO_SPLIT = "no split in its name"
TOLD_FILES = 4


class RawRows(NamedTuple):
    """Rows with their places, and how many there will be (for the progress display only)."""

    total: int
    rows: Iterable[tuple[Place, Row]]


def local_rows(source: Path | None) -> RawRows:
    """Rows of a file, or of all files of a folder.

    Raises EnvironmentProblem where there is none; UsageProblem for a folder with a file that is neither read nor known to hold no rows,
    with several splits, or without one of several shards; DataError for a column that stands twice.
    """
    if source is None or not source.exists():
        raise EnvironmentProblem(
            f"source.path: {source or 'no path given'} does not exist; mend the path in the profile or put the data there"
        )
    files = _data_files(source) if source.is_dir() else [source]
    if not files:
        raise EnvironmentProblem(f"source.path: {source} holds no {', '.join(DATA_FILES)} file; put the data there")
    if source.is_dir():
        names = [path.relative_to(source).as_posix() for path in files]
        _one_split(source, names)
        _whole(source, names)
    parts = [_file_rows(path, _within(source, path)) for path in files]
    return RawRows(sum(part.total for part in parts), (row for part in parts for row in part.rows))


def _one_split(source: Path, names: Sequence[str]) -> None:
    """Raises UsageProblem for a folder whose files are named after several splits: held-out rows must not become training pairs.

    A file without a split in its name beside one with it is another split too: `pairs.jsonl` and `test.jsonl`.
    """
    splits: dict[str, str] = {}
    for name in names:
        splits.setdefault(_split_of(name), name)
    if len(splits) > 1:
        told = ", ".join(f"{split} ({file})" for split, file in sorted(splits.items()))
        raise UsageProblem(f"source.path: {source.name} holds several splits: {told}; name one file, or a folder with one split")


def _split_of(name: str) -> str:
    """The split that a file's path names: its words in order, with the way of training that a split is for."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    found = list(SPLIT.finditer(plain))
    if not found:
        return NO_SPLIT
    rest = plain[found[-1].end() :]
    shard, purpose = SHARD.search(rest), PURPOSE.match(rest)
    kind = re.sub(r"[^a-z]+", " ", rest[: shard.start()]).strip() if shard and "/" not in rest else purpose[1] if purpose else ""
    return " ".join([*dict.fromkeys(SPLIT_NAMES.get(one[1], one[1]) for one in found), *([kind] if kind else [])])


def _whole(source: Path, names: Sequence[str]) -> None:
    """Raises UsageProblem for a folder without one of the files that the others' names count: `train-00000-of-00002.jsonl` alone."""
    shards: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        found = SHARD.search(name, name.rfind("/") + 1)
        if found:
            shards.setdefault((name[: found.start()], int(found[2])), {})[int(found[1])] = name
    for (_, total), there in shards.items():
        if len(there) < total:
            # Most count from 0, some from 1.
            missing = next(number for number in count(0 if 0 in there or total not in there else 1) if number not in there)
            raise UsageProblem(
                f"source.path: {source.name} holds {len(there)} of the {total} files that {min(there.values())} counts "
                f"(number {missing} is missing); bring the others, or name one file"
            )


def _within(source: Path, path: Path) -> str:
    """The name of a file inside the folders below the one that was given, without its suffix; empty for a file at its top."""
    return path.relative_to(source).with_suffix("").as_posix() if path.parent not in (source, source.parent) else ""


def _data_files(folder: Path) -> list[Path]:
    """Files with rows, sorted by name. Raises UsageProblem for files that are neither such nor known to hold no rows."""
    # Links count even where nothing is behind them, or a folder, into which rglob does not go.
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    shown = [name for name in sorted(names) if not _is_hidden(name)]
    data = {name: names[name] for name in shown if names[name].is_file() and name.suffix.lower() in DATA_FILES}
    others = [name.as_posix() for name in shown if name not in data and not _holds_no_rows(names[name])]
    if data and others:
        more = f" and {len(others) - TOLD_FILES} more" if len(others) > TOLD_FILES else ""
        raise UsageProblem(
            f"source.path: {folder.name} holds what is not read: {', '.join(others[:TOLD_FILES])}{more}; unpack or convert it to JSONL or "
            "Parquet, move it out of the folder, or name one file"
        )
    return list(data.values())


def _is_hidden(name: Path) -> bool:
    folders = {part.lower() for part in name.parts[:-1]}
    return name.name.lower() in DESCRIPTIONS or any(part.startswith(".") for part in name.parts) or bool(folders & NO_DATA_FOLDERS)


def _holds_no_rows(path: Path) -> bool:
    # Spark marks a finished folder with `_SUCCESS` and the like.
    name = path.name.lower()
    known = path.suffix.lower() in NO_DATA_SUFFIXES or name.startswith("_") or NO_DATA_NAMES.match(name)
    return bool(known) or (path.is_file() and not path.stat().st_size)


def _file_rows(path: Path, within: str) -> RawRows:
    if path.suffix.lower() == ".parquet":
        table = pyarrow.parquet.ParquetFile(path)
        twice = _twice(list(table.schema_arrow))
        if twice is not None:
            raise DataError(f"{path}: {twice}: two columns have this name, and only one could be read; rename or remove one")
        numbered = enumerate((row for batch in table.iter_batches() for row in batch.to_pylist()), start=1)
        return RawRows(table.metadata.num_rows, (_placed(path, within, number, row) for number, row in numbered))
    return RawRows(count_rows(path), (_placed(path, within, number, row) for number, row in read_lines(path)))


def _twice(fields: Sequence[pyarrow.Field]) -> str | None:
    """The name that two columns of a table have, or two fields of one object inside it; None for none."""
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        return next(name for name in names if names.count(name) > 1)
    inner = (_twice([field.type.field(place) for place in range(field.type.num_fields)]) for field in fields)
    return next((name for name in inner if name is not None), None)


def _placed(path: Path, within: str, number: int, row: Any) -> tuple[Place, Row]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: row: is no object with keys; give one object a row")
    return Place(str(path), number, within), row
