"""docs/field-cases.md names every case once, and tests that exist."""

from __future__ import annotations

import ast
import re

from folders import ROOT

CASES = [f"{kind}{number}" for kind, last in (("A", 11), ("B", 9), ("C", 11), ("D", 3)) for number in range(1, last + 1)]
ROW = re.compile(r"^\| ([A-D]\d+) [^|]+ \| ((?:mended|open)[^|]*) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
PAGE = (ROOT / "docs" / "field-cases.md").read_text(encoding="utf-8")


def test_every_case_has_one_row_in_order() -> None:
    assert [row[1] for row in ROW.finditer(PAGE)] == CASES


def test_every_row_names_tests_that_exist() -> None:
    missing = []
    for row in ROW.finditer(PAGE):
        named = TEST.findall(row[3])
        assert named and TEST.sub("", row[3]).strip(" ,") == "", f"{row[1]}: only tests in the last column, `path::name`"
        for path, name in named:
            file = ROOT / path
            tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
            if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
                missing.append(f"{row[1]}: {path}::{name}")
    assert not missing
