"""Artifacts of invented jobs for tests of the store: claimed, built, abandoned, damaged."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from make_believe_jobs import CountConfig

from sarm.job import Job, JobRequest
from sarm.store.artifacts import ArtifactStore
from sarm.store.claim_and_commit import claim, commit
from sarm.store.manifest import RunFacts
from sarm.store.staging import Staging

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FACTS = RunFacts(started=NOW, ended=NOW, seconds=1.5, peak_memory_bytes=1024)


def never() -> bool:
    return False


def silent(note: str) -> None:
    pass


def begin(store: ArtifactStore, job: Job) -> Staging:
    staged = claim(store, JobRequest.of(job), waiting=silent, stop_requested=never)
    assert isinstance(staged, Staging)
    return staged


def build(store: ArtifactStore, job: Job, content: str = "0123456789") -> Path:
    staged = begin(store, job)
    (staged.output / "deep").mkdir()
    (staged.output / "deep" / "data.txt").write_text(content)
    (staged.output / "other.txt").write_text("x")
    commit(store, staged, FACTS)
    return store.path(job)


def abandon(staged: Staging) -> Path:
    """Make a staging look as if its process had died: the pid stays, its start time does not fit."""
    staged.heartbeat.stop()
    host, pid, start, nonce = staged.folder.name.split("-")
    dead = staged.folder.with_name(f"{host}-{pid}-{int(start) - 1}-{nonce}")
    staged.folder.rename(dead)
    return dead


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


JOB = Job(CountConfig(), label="the count")
