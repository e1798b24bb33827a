"""The walks of `docs/walks`: every command that they show is run, on stand-ins where it needs a hub or a cluster, and shows what they say.

`SARM_UPDATE_WALKS=1 pytest tests/test_walks.py` writes what the commands print now into the pages.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from walk_stages import STAGES
from walks import WALKS, Step, renewed, run, same, steps

UPDATE = os.environ.get("SARM_UPDATE_WALKS") == "1"
PAGES = sorted(WALKS.glob("*.md"))


def test_every_walk_has_a_stage_and_the_index_names_it() -> None:
    assert {page.stem for page in PAGES} == set(STAGES)
    index = (WALKS.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"(walks/{page.name})" in index for page in PAGES)


def test_the_index_names_every_page_of_the_docs() -> None:
    index = (WALKS.parent / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in WALKS.parent.glob("*.md") if page.name != "README.md"]
    assert [page for page in pages if f"({page})" not in index] == []


def test_words_must_agree_and_numbers_nearly() -> None:
    assert same("reward 1.2500 of a1b2c3d4e5 in 3 s", "reward 1.2503 of ffffffff00 in 12 s")
    assert not same("reward 1.25", "reward 1.35") and not same("7 MATCH", "7 DIFFERS") and not same("a 1", "a 1 2")
    assert steps("x\n```console\n$ one \\\n  two\nsaid\n$ three\n```\n") == [[Step("one \\\n  two", "said"), Step("three", "")]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_walk_shows_what_its_commands_print(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    with ExitStack() as kept:
        environment = STAGES[page.stem](tmp_path, kept)
        blocks = [
            [Step(step.command, run(step.command, where=tmp_path, environment=environment)) for step in block] for block in steps(text)
        ]
    assert sum(map(len, blocks)) >= 3, "a walk takes some steps"
    if UPDATE:
        page.write_text(renewed(text, blocks), encoding="utf-8")
        return
    for shown, found in zip(steps(text), blocks, strict=True):
        for one, other in zip(shown, found, strict=True):
            assert same(one.shown, other.shown), f"$ {one.command}\n{other.shown}\n--- the page says\n{one.shown}"
