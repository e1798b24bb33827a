"""The one reader and the one writer of JSON lines: what others write is understood or refused by name, and no text cuts a line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from folders import ROOT
from hypothesis import given
from hypothesis import strategies as st

from sarm.store.json_lines import LinesError, append_line, as_line, read_json, read_lines, read_log, write_lines

TEXTS = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\u2028\u2029\u0085\r\x0b\x0c\x1c\n\0\ufeff"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=5)


def values(path: Path) -> list[Any]:
    return [row for _, row in read_lines(path)]


@given(rows=ROWS)
def test_what_is_written_is_read_and_every_tool_finds_as_many_lines(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_lines(path, rows) == len(rows)
    assert values(path) == rows and read_log(path).rows == rows
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(rows)


@given(rows=st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), min_size=1, max_size=5), cut=st.integers(1, 60))
def test_a_torn_log_loses_its_last_line_alone(rows: list[dict[str, Any]], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    for row in rows:
        append_line(path, row)
    last = len(as_line(rows[-1]).encode())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - min(cut, last)])
    found = read_log(path)
    assert found.rows == rows[:-1] and len(found.torn) == int(cut < last)


@pytest.mark.parametrize("written", [
    lambda rows: "\ufeff" + "".join(json.dumps(row) + "\n" for row in rows),
    lambda rows: "\r\n".join(json.dumps(row) for row in rows),
    lambda rows: "\n\n  \n" + "\n\n".join(json.dumps(row) for row in rows),
    json.dumps,
    lambda rows: "\ufeff \n" + json.dumps(rows, indent=2) + "\n",
], ids=["mark", "CRLF", "blank lines", "list", "indented list with mark"])  # fmt: skip
def test_forms_that_others_write_are_read(tmp_path: Path, written: Callable[[list[dict[str, Any]]], str]) -> None:
    rows = [{"a": 1}, {"a": "\u2028"}, {"b": [None, 1.5]}]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(written(rows).encode("utf-8"))
    assert values(path) == rows


@pytest.mark.parametrize(("content", "said"), [
    ('{"a": "ä"}\n'.encode("latin-1"), ":1: is not UTF-8 (byte 7: 0xe4); save it as UTF-8"),
    ('{"a": 1}\n'.encode("utf-16"), ":1: is not UTF-8"),
    ('{"a": 1}\n'.encode("utf-16-le"), ":1: holds NUL bytes"),
    (b'{"a": 1}\n\n\n{"a" 1}\n', ":4: is no JSON"),
    (b'[{"a": 1},\n{"a" 1}]\n', ":2: is no JSON"),
    (b'{"a": 1, "a": 2}\n', ":1: the key 'a' stands twice in one object"),
    (b'{"b": {"a": 1, "a": 1}}\n', ":1: the key 'a' stands twice in one object"),
    (b'{"a": "\\ud83d"}\n', ":1: holds half of a surrogate pair"),
    (b'{"a": 1}\n{"a": 1\0}\n', ":2: holds NUL bytes"),
    (b"[" * 100_000, ":1: "),
    (b'{"a": ' + b"9" * 5_000 + b"}\n", ":1: "),
], ids=["Latin-1", "UTF-16 with mark", "UTF-16", "line number after blank lines", "line number in a list", "key twice", "key twice, inside",
        "half a pair", "NUL", "deep", "huge number"])  # fmt: skip
def test_what_cannot_be_understood_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(LinesError) as caught:
        values(path)
    assert str(caught.value).startswith(f"{path}{said}") and "\n" not in str(caught.value)


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, path)


def arrow(path: Path, writer: Callable[..., Any]) -> None:
    with writer(str(path), TABLE.schema) as out:
        out.write_table(TABLE)


TABLE = pyarrow.table({"a": [1, 2]})
OTHER_FORMATS: dict[str, Callable[[Path], Any]] = {
    "gzip": lambda path: path.write_bytes(gzip.compress(b'{"a": 1}\n')),
    "bzip2": lambda path: path.write_bytes(bz2.compress(b'{"a": 1}\n')),
    "xz": lambda path: path.write_bytes(lzma.compress(b'{"a": 1}\n')),
    "Parquet": parquet,
    "an Arrow file": lambda path: arrow(path, pyarrow.RecordBatchFileWriter),
    "an Arrow stream": lambda path: arrow(path, pyarrow.RecordBatchStreamWriter),
}


@pytest.mark.parametrize("read", [values, read_json])
@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_a_file_of_another_format_is_called_by_its_name(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "rows.jsonl"
    OTHER_FORMATS[name](path)
    with pytest.raises(LinesError, match=rf"rows\.jsonl: is {name}, not JSON lines; (unpack it first|write its rows as JSON lines)"):
        read(path)


@pytest.mark.parametrize(("file", "content"), [
    ("rows.jsonl", "prompt,chosen,rejected\nx,y,z\n"),
    ("rows.jsonl", '"prompt","chosen"\r\n"x","y"\r\n'),
    ("rows.jsonl", "\ufeffprompt\tchosen text\nx\ty\n"),
    ("rows.csv", "1,2\n3,4\n"),
    ("rows.TSV", "one\n2\n"),
], ids=["names", "quoted", "tabs and mark", "numbers", "one column"])  # fmt: skip
def test_csv_is_told_apart_from_torn_json(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content, encoding="utf-8", newline="")
    with pytest.raises(LinesError, match=rf"{file}:1: looks like CSV, not JSON lines; write its rows as JSON lines, one object a line$"):
        values(tmp_path / file)


def test_torn_json_is_not_called_csv(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a, b", "chosen"\n')
    with pytest.raises(LinesError, match=r":1: is no JSON"):
        values(tmp_path / "rows.jsonl")


def test_lines_inside_a_log_that_are_none_are_told_and_the_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n\0\0\0\0\n{"a": 2}\nxx\n{"a": 3')
    found = read_log(path)
    assert found.rows == [{"a": 1}, {"a": 2}] and len(found.torn) == 3
    assert read_log(tmp_path / "absent.jsonl") == ([], [])


def test_nan_survives(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"a": math.nan}, {"a": -math.inf}])
    first, second = values(tmp_path / "rows.jsonl")
    assert math.isnan(first["a"]) and second["a"] == -math.inf


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_lines(path, [{"a": 2}, {"a": object()}])
    assert values(path) == [{"a": 1}] and [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


def test_no_other_file_cuts_text_into_json_lines() -> None:
    """A `json.loads` in a loop over lines is a reader of its own, which other tools' line ends would cut."""
    # The launcher reads its child's events from a pipe, and cuts lines only to show a log's end.
    own = {"sarm/store/json_lines.py", "replication/launch/local.py", "sarm/judges/answers.py"}
    found = []
    for package in ("sarm", "replication"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            if name not in own and "json.loads(line)" in text and ".splitlines()" in text:
                found.append(name)
    assert not found
