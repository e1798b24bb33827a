"""Every deviation that the code states is told in docs/deviations.md, and nothing is told there that the code no longer states."""

from __future__ import annotations

import re

from folders import ROOT

STATED = re.compile(r"\bDeviation: (?P<words>.+)$", re.MULTILINE)
TOLD = re.compile(r"^- `(?P<file>[^`]+\.py)`: \"(?P<words>.+)\"$", re.MULTILINE)


def stated_in_code() -> list[tuple[str, str]]:
    """(file, the words after `Deviation:` on that line) of each such line."""
    return [
        (path.relative_to(ROOT).as_posix(), found["words"])
        for package in ("sarm", "replication")
        for path in sorted((ROOT / package).rglob("*.py"))
        for found in STATED.finditer(path.read_text(encoding="utf-8"))
    ]


def told_in_docs() -> list[tuple[str, str]]:
    """(file, first words) of each line of the page's last section."""
    page = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    return [(found["file"], found["words"]) for found in TOLD.finditer(page)]


def belong(code_file: str, words: str, told_file: str, start: str) -> bool:
    """Whether a line of the page is about a line of the code."""
    return code_file == told_file and words.startswith(start)


def test_every_deviation_in_the_code_is_told() -> None:
    told = told_in_docs()
    missing = [f"{file}: {words}" for file, words in stated_in_code() if not any(belong(file, words, *one) for one in told)]
    assert not missing, "add to the last section of docs/deviations.md:\n" + "\n".join(missing)


def test_every_deviation_told_is_in_the_code() -> None:
    stated = stated_in_code()
    assert stated
    stale = [f"{file}: {start}" for file, start in told_in_docs() if not any(belong(*one, file, start) for one in stated)]
    assert not stale, "docs/deviations.md names what no line of code states:\n" + "\n".join(stale)
