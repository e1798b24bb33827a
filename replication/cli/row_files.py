"""Rows that come on standard input or from a file, and rows that go into one: JSON lines, CSV or Parquet by the file's suffix."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm.data.preferences import DataError
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.json_lines import write_lines
from sarm.store.whole_files import whole_file

if TYPE_CHECKING:
    import pyarrow

STANDARD_INPUT = Path("-")
Row = Mapping[str, Any]


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """The file; for `-` a copy of what comes on standard input, which is gone after the block and named as such in its problems."""
    if path != STANDARD_INPUT:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="replicate-") as folder:
        copy = Path(folder).resolve() / "standard-input"
        with copy.open("wb") as out:
            shutil.copyfileobj(sys.stdin.buffer, out)
        try:
            yield copy
        except DataError as problem:
            raise DataError(str(problem).replace(str(copy), "standard input")) from problem


def refuse_other_suffix(path: Path | None) -> None:
    """Before anything is computed. Raises UsageProblem for a file whose suffix says no format that we write, or in no folder."""
    if path is None:
        return
    if path.suffix.lower() not in WRITERS or path.is_dir():
        raise UsageProblem(f"--out {path}: write to a file that ends with {', '.join(WRITERS)}")
    if not path.absolute().parent.is_dir():
        raise UsageProblem(f"--out {path}: there is no folder {path.parent}; make it first")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """All rows with every key that any of them has, the whole file or nothing of it.

    In CSV what is nested is JSON, null is empty and an empty text is `""`, and line ends stay inside quotes. Raises EnvironmentProblem.
    """
    try:
        WRITERS[path.suffix.lower()](path, rows)
    except OSError as error:
        raise EnvironmentProblem(f"--out {path}: cannot be written ({error.strerror or error}); name another folder") from error


def _lines(path: Path, rows: Sequence[Row]) -> None:
    write_lines(path, rows)


def _csv(path: Path, rows: Sequence[Row]) -> None:
    from pyarrow import csv  # noqa: PLC0415 - not needed by --help

    with whole_file(path) as partial:
        csv.write_csv(_table([_flat(row) for row in rows]), str(partial))


def _parquet(path: Path, rows: Sequence[Row]) -> None:
    from pyarrow import parquet  # noqa: PLC0415 - not needed by --help

    with whole_file(path) as partial:
        parquet.write_table(_table(rows), str(partial))


def _table(rows: Sequence[Row]) -> pyarrow.Table:
    """Of each name that any row has one column; pyarrow alone would take the names of the first row."""
    import pyarrow  # noqa: PLC0415 - not needed by --help

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pyarrow.table({name: _column(values) for name, values in columns.items()})


def _column(values: Sequence[Any]) -> pyarrow.Array:
    """The values in their own type; as JSON where there is no one type for all of them."""
    import pyarrow  # noqa: PLC0415 - not needed by --help

    try:
        found = pyarrow.array(values, from_pandas=False)
    except (pyarrow.ArrowException, OverflowError):
        found = None
    if found is None or not _has_fields(found.type) or not _same(found.to_pylist(), values):
        return pyarrow.array([None if value is None else _json(value) for value in values], pyarrow.string())
    return found


def _has_fields(kind: pyarrow.DataType) -> bool:
    """Whether every object in a type has a field: Parquet has no others."""
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return (bool(inner) or not str(kind).startswith("struct")) and all(map(_has_fields, inner))


def _same(one: Any, other: Any) -> bool:
    # As text, in which NaN equals itself and 1 is not 1.0: a whole number among fractions may have been rounded.
    return _json(one) == _json(other)


def _flat(row: Row) -> Row:
    return {name: _json(value) if isinstance(value, Mapping | list | tuple) else value for name, value in row.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


WRITERS: Mapping[str, Callable[[Path, Sequence[Row]], None]] = {".jsonl": _lines, ".csv": _csv, ".parquet": _parquet}
