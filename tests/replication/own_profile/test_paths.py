"""Files as a profile names them: found again from its folder, and nobody's home or name in the text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.own_profile.paths import Reader, named
from replication.settings.profile_files import _expand
from replication.usage_problems import UsageProblems

# Written apart, since no file of the project may hold a path of somebody's machine.
HOMES, MAC, ROOT_HOME = "/" + "home", "/" + "Users", "/" + "root"
ALICE, BOB = f"{HOMES}/alice", f"{HOMES}/bob"


def reader(folder: str, *, home: str = ALICE, user: str = "alice", data: str = "") -> Reader:
    return Reader(Path(folder), home, user, data)


def text(path: str, where: Reader) -> str:
    return named(Path(path), where, variable="REPLICATE_PAIRS").text


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        (f"{ALICE}/run/data/p.jsonl", f"{ALICE}/run", "data/p.jsonl"),
        (f"{ALICE}/data/p.jsonl", f"{ALICE}/run", "../data/p.jsonl"),
        (f"{ALICE}/data/p.jsonl", "/scratch/run", "~/data/p.jsonl"),
        (f"{ALICE}/data/p.jsonl", f"{BOB}/run", "~/data/p.jsonl"),
        (f"{BOB}/data/p.jsonl", f"{ALICE}/run", "${REPLICATE_PAIRS}"),
        (f"{MAC}/bob/p.jsonl", "/scratch", "${REPLICATE_PAIRS}"),
        (f"{ROOT_HOME}/p.jsonl", "/scratch", "${REPLICATE_PAIRS}"),
        ("/scratch/alice/p.jsonl", "/scratch/run", "${REPLICATE_PAIRS}"),
        ("/scratch/alice/p.jsonl", "/scratch/alice/run", "../p.jsonl"),
        ("/datasets/p.jsonl", "/scratch/run", "/datasets/p.jsonl"),
        ("/scratch/run/~/p.jsonl", "/scratch/run", "/scratch/run/~/p.jsonl"),
        ("/scratch/run", "/scratch/run", "."),
    ],
)
def test_each_place_has_its_way_to_be_named(path: str, folder: str, expected: str) -> None:
    assert text(path, reader(folder)) == expected


def test_data_that_the_environment_names_are_named_by_it() -> None:
    assert text("/datasets/p.jsonl", reader("/scratch", data="/datasets")) == "${SARM_DATA}/p.jsonl"


@pytest.mark.parametrize("path", ["/scratch/${HOME}/p.jsonl", "/scratch/\udcff.jsonl"])
def test_a_name_that_no_profile_can_hold_is_refused(path: str) -> None:
    with pytest.raises(UsageProblems, match="a profile cannot name this path"):
        text(path, reader("/scratch"))


PARTS = st.lists(st.sampled_from(["a", "b c", "alice", "bob", "~", "é", "x.y"]), min_size=1, max_size=4)
ROOTS = st.sampled_from([ALICE, BOB, ROOT_HOME, "/scratch", "/scratch/alice", f"{MAC}/alice", HOMES])


BELOW = st.lists(st.sampled_from(["run", "alice"]), max_size=2)


@given(root=ROOTS, parts=PARTS, base=ROOTS, below=BELOW, data=st.sampled_from(["", "/scratch"]))
def test_what_is_written_is_found_again_and_names_nobody(root: str, parts: list[str], base: str, below: list[str], data: str) -> None:
    path, folder = Path(root, *parts), Path(base, *below)
    found = named(path, reader(str(folder), data=data), variable="REPLICATE_PAIRS")
    environment = {"SARM_DATA": data, "REPLICATE_PAIRS": str(path)}
    problems: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", ALICE)
        back = _expand({"path": found.text}, base=folder, environment=environment, pins={}, problems=problems)["path"]
    assert os.path.normpath(back) == str(path) and not problems
    climbs = found.text.startswith("..")
    assert not found.text.startswith((HOMES, MAC, ROOT_HOME))
    if climbs or found.text.startswith("/"):
        assert "alice" not in Path(found.text).parts
        assert not any(part in found.text for part in ("home", "Users"))
