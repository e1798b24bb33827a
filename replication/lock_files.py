"""The lock files of a store: which commit each hub repository is pinned to, and which files came from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replication.usage_problems import UsageProblems
from sarm.job import IntegrityProblem, Job
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.whole_files import write_whole

PINS_FILE = "revisions.json"
FETCHED_FILE = "fetched.json"
# What a job that downloads writes beside its files; see sarm/checkpoints/hub.py.
RECORD = "hub.json"


def read_pins(store: ArtifactStore) -> dict[str, str]:
    """Hub repository (`repository@branch` where a branch is named) -> commit, as `replicate fetch` has written them; empty before.

    Raises UsageProblems for a broken file.
    """
    pins = _read(store.root / PINS_FILE)
    if not all(isinstance(value, str) for value in pins.values()):
        raise UsageProblems([f"{store.root / PINS_FILE}: expected repository -> commit; delete it and run `replicate fetch` again"])
    return {name: str(value) for name, value in pins.items()}


def write_pins(store: ArtifactStore, new: Mapping[str, str]) -> None:
    """Add pins to the lock file, whole or not at all."""
    _write(store.root / PINS_FILE, {**read_pins(store), **new})


def read_fetched(store: ArtifactStore) -> dict[str, Any]:
    """`type repository@commit` -> {path: {sha256, bytes}} of what was fetched into this store. Raises UsageProblems."""
    return _read(store.root / FETCHED_FILE)


def lock_fetched(store: ArtifactStore, jobs: Sequence[Job]) -> list[str]:
    """Take what the artifacts of these jobs say of their downloads into the lock file; gives the names of what is new.

    Raises IntegrityProblem when a commit's files are not those of the lock: nothing may change below a commit.
    """
    locked = read_fetched(store)
    found = {name: files for job in jobs if (record := _record(store.path(job))) for name, files in [record]}
    wrong = [problem for name, files in found.items() for problem in _differences(name, locked.get(name, files), files)]
    if wrong:
        raise IntegrityProblem("\n".join(wrong))
    new = [name for name in found if name not in locked]
    if new:
        _write(store.root / FETCHED_FILE, {**locked, **found})
    return new


def lock_problems(store: ArtifactStore) -> list[str]:
    """Where artifacts and lock file disagree, one line each; what was locked and is no longer in the store is no problem."""
    locked = read_fetched(store)
    records = [_record(store.path(manifest)) for manifest in store.entries()]
    return [
        problem
        for record in records
        if record is not None
        for problem in _differences(record[0], locked.get(record[0], record[1]), record[1])
    ]


def _differences(name: str, locked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {path} differs from the lock file {FETCHED_FILE}; delete its artifact (or this entry) and run `replicate fetch` again"
        for path in sorted({*locked, *found})
        if locked.get(path) != found.get(path)
    ]


def _record(folder: Path) -> tuple[str, dict[str, Any]] | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    record = read_facts(path, "type", "repository", "revision", "files")
    with understood_facts(path):
        return f"{record['type']} {record['repository']}@{record['revision']}", dict(record["files"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageProblems([f"{path}: not JSON ({error}); delete it and run `replicate fetch` again"]) from error
    if not isinstance(content, dict):
        raise UsageProblems([f"{path}: expected an object; delete it and run `replicate fetch` again"])
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(dict(sorted(content.items())), indent=1) + "\n")
