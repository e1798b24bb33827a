"""JSON lines, as others write them and as we do: the one reader and the one writer of the house.

A line ends at "\\n" and nowhere else: texts hold U+2028, U+2029 and U+0085, at which `str.splitlines` would cut. What cannot be understood
is refused in one line that names file, line and next step; a reader never takes one of two values, and never half of a file.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from sarm.job import UsageProblem
from sarm.store.whole_files import whole_file

# Marks with which other encodings begin; those of UTF-32 begin with one of UTF-16.
OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
# Ends of lines to other tools (Python's splitlines, JavaScript): written as escapes, which mean the same to every reader of JSON.
LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
START_BYTES = 4096
# How files of other formats begin, what they are called, and what to do with one.
UNPACK = "unpack it first"
AS_LINES = "write its rows as JSON lines, one object a line"
BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip", UNPACK),
    (b"BZh", "bzip2", UNPACK),
    (b"\xfd7zXZ\0", "xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "Zstandard", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"PAR1", "Parquet", f"{AS_LINES}, or, among a profile's data, name it .parquet"),
    (b"ARROW1", "an Arrow file", AS_LINES),
    (b"\xff\xff\xff\xff", "an Arrow stream", AS_LINES),
    (b"SQLite format 3\0", "an SQLite database", AS_LINES),
    (b"\x89HDF\r\n\x1a\n", "HDF5", AS_LINES),
)
# What stands above a column of a table in text.
COLUMN = re.compile(rb"\"?[A-Za-z_][\w .-]*\"?")


class LinesError(UsageProblem):
    """A file of JSON lines is not what it should be. The message names file, line and next step."""


class Line(NamedTuple):
    """A row and where it stands: the number of its line, or its place in a file that is one list, from 1."""

    number: int
    value: Any


class Log(NamedTuple):
    """What a log held: its rows in order, and the lines that are none (torn by a kill, a full disk or a power cut)."""

    rows: list[Any]
    torn: list[bytes]


def read_lines(path: Path) -> Iterator[Line]:
    """The rows of a file: one JSON value a line, blank lines left out, or one JSON list in the whole file. UTF-8, with or without its mark.

    Raises LinesError for another format, which it names, another encoding, NUL bytes, what is no JSON, half a surrogate pair, and a key
    that stands twice in one object.
    """
    if _is_list(path):
        rows = _value(path, 1, path.read_bytes().removeprefix(codecs.BOM_UTF8))
        yield from (Line(number, row) for number, row in enumerate(rows, start=1))
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                yield Line(number, _value(path, number, content))


def read_json(path: Path) -> Any:
    """A file that is one JSON value, with the checks of `read_lines`. Raises LinesError; FileNotFoundError."""
    _is_list(path)
    return _value(path, 1, path.read_bytes().removeprefix(codecs.BOM_UTF8))


def count_rows(path: Path) -> int:
    """About how many rows a file has, for a bar: its line ends, and one more for a last line without."""
    with path.open("rb") as content:
        return sum(1 for _ in content)


def write_lines(path: Path, rows: Iterable[BaseModel | Mapping[str, Any]]) -> int:
    """Write rows as JSON lines, the whole file or nothing of it; returns how many. NaN and infinities are written as Python does."""
    count = 0
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(as_line(row))
            count += 1
    return count


def as_line(row: BaseModel | Mapping[str, Any]) -> str:
    """A row as one line with its end. Line ends inside its texts are escaped, so any reader finds one line."""
    value = row.model_dump(mode="json") if isinstance(row, BaseModel) else row
    return json.dumps(value, ensure_ascii=False).translate(LINE_ENDS) + "\n"


def append_line(path: Path, row: BaseModel | Mapping[str, Any]) -> None:
    """Append a row to a log and flush it to the disk: what is torn later is at most the last line."""
    with path.open("ab") as out:
        out.write(as_line(row).encode("utf-8"))
        out.flush()
        os.fsync(out.fileno())


def read_log(path: Path) -> Log:
    """The rows of a log that was appended to, and what is torn in it (a last line without its end is). No file: nothing."""
    if not path.exists():
        return Log([], [])
    found = Log([], [])
    for line in _pieces(path.read_bytes()):
        try:
            if not line.endswith(b"\n"):
                raise LinesError("cut off")
            found.rows.append(_value(path, 0, line))
        except LinesError:
            found.torn.append(line)
    return found


def _pieces(content: bytes) -> Iterator[bytes]:
    pieces = content.split(b"\n")
    yield from (piece + b"\n" for piece in pieces[:-1] if piece.strip())
    if pieces[-1]:
        yield pieces[-1]


def _is_list(path: Path) -> bool:
    with path.open("rb") as content:
        start = content.read(START_BYTES)
    for magic, name, cure in BINARY:
        if start.startswith(magic):
            raise LinesError(f"{path}: is {name}, not JSON lines; {cure}")
    if start.startswith(OTHER_ENCODINGS):
        raise LinesError(f"{path}:1: is not UTF-8 (it begins with the mark of UTF-16 or UTF-32); save it as UTF-8")
    return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _value(path: Path, number: int, content: bytes) -> Any:
    where = f"{path}:{number}"
    if b"\0" in content:
        raise LinesError(f"{where}: holds NUL bytes (a torn file, or UTF-16); copy it again, or save it as UTF-8")
    try:
        value = parsed(content)
    except UnicodeDecodeError as error:
        raise LinesError(f"{where}: is not UTF-8 (byte {error.start}: {content[error.start]:#04x}); save it as UTF-8") from error
    except UnicodeEncodeError as error:
        raise LinesError(f"{where}: holds half of a surrogate pair, which is no text; mend the row or remove it") from error
    except json.JSONDecodeError as error:
        if number == 1 and (path.suffix.lower() in (".csv", ".tsv") or _heads_a_table(content)):
            raise LinesError(f"{path}:1: looks like CSV, not JSON lines; {AS_LINES}") from error
        place = f"{path}:{number + error.lineno - 1}"
        raise LinesError(f"{place}: is no JSON ({error.msg}, column {error.colno}); mend the row or remove it") from error
    except (ValueError, RecursionError) as error:
        raise LinesError(f"{where}: {str(error) or 'is nested too deeply'}; mend the row or remove it") from error
    return value


def _heads_a_table(line: bytes) -> bool:
    """Whether a line is several names with one of the usual marks between them."""
    pieces = [line[:START_BYTES].strip().split(mark) for mark in (b",", b";", b"\t")]
    return any(len(names) > 1 and all(COLUMN.fullmatch(name.strip()) for name in names) for names in pieces)


def parsed(content: bytes) -> Any:
    """The JSON value in bytes of UTF-8.

    Raises ValueError for anything else, where a key stands twice, and for half of a surrogate pair, which no file can hold again;
    RecursionError where it is nested too deeply.
    """
    value = json.loads(content.decode("utf-8").rstrip(), object_pairs_hook=_once)
    if b"\\u" in content:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs. Raises ValueError where a key stands twice: neither of two values is taken."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found
