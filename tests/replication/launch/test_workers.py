"""Several local processes at one plan: each job done once, failures and stops told once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from folders import SUPPORT
from make_believe_jobs import CountConfig, SumConfig

from replication.launch.local import LocalLauncher, cores
from sarm.job import Job, topological_order
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate all"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.1")
    return ArtifactStore(tmp_path / "store")


def pair(reports: list[str], *, keep_going: bool = False) -> LocalLauncher:
    return LocalLauncher(
        command=COMMAND, keep_going=keep_going, report=reports.append, registry="make_believe_jobs:MAKE_BELIEVE", workers=2
    )


def told(events: list[dict[str, Any]], name: str) -> list[str]:
    return sorted(event["label"] for event in events if event["event"] == name)


def test_two_processes_share_a_plan_and_each_job_is_done_once(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_LEDGER", str(tmp_path / "ledger"))
    counts = {name: Job(CountConfig(seed=seed, steps=8), label=name) for seed, name in enumerate("abcd")}
    total = Job(SumConfig(), inputs=counts, label="total")
    events: list[dict[str, Any]] = []
    reports: list[str] = []
    assert pair(reports).launch(topological_order([total]), store, events.append) == 0
    assert told(events, "done") == ["a", "b", "c", "d", "total"] and reports == []
    workers = [line.split()[1] for line in (tmp_path / "ledger").read_text().splitlines() if line.startswith("count")]
    assert len(workers) == 4 and len(set(workers)) == 2, "four jobs, two processes"


def test_a_job_has_as_many_threads_where_it_is_the_only_one_left(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone job had all cores, and what is trained with two threads is another model than with one (docs/miniature.md)."""
    monkeypatch.setenv("MAKE_BELIEVE_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [Job(CountConfig(seed=seed), label=name) for seed, name in enumerate("abc")]
    for plan in (jobs[:2], jobs[2:]):
        assert pair([]).launch(plan, store, lambda event: None) == 0
    threads = [line.split()[2] for line in (tmp_path / "ledger").read_text().splitlines() if line.startswith("count")]
    assert len(threads) == 3 and set(threads) == {str(max(1, cores() // 2))}


def test_a_corrupt_artifact_is_built_again_by_one_of_them(store: ArtifactStore) -> None:
    counts = {name: Job(CountConfig(seed=seed, steps=2), label=name) for seed, name in enumerate("ab")}
    plan = topological_order([Job(SumConfig(), inputs=counts, label="total")])
    assert pair([]).launch(plan, store, lambda event: None) == 0
    chain = store.path(counts["a"]) / "deep" / "chain.json"
    chain.write_text("[0]")
    assert not store.has(counts["a"])
    events: list[dict[str, Any]] = []
    assert pair([]).launch([counts["a"], Job(CountConfig(seed=9, steps=2), label="c")], store, events.append) == 0
    assert told(events, "done") == ["a", "c"] and store.has(counts["a"])


def test_with_keep_going_a_job_fails_once_and_only_what_needs_it_is_skipped(store: ArtifactStore) -> None:
    bad, good = Job(CountConfig(trouble="usage"), label="bad"), Job(CountConfig(seed=1), label="good")
    plan = topological_order([Job(SumConfig(), inputs={"a": bad}, label="sum"), good])
    events: list[dict[str, Any]] = []
    assert pair([], keep_going=True).launch(plan, store, events.append) == 2
    assert (told(events, "failed"), told(events, "skipped"), told(events, "done")) == (["bad"], ["sum"], ["good"])


def test_a_failure_stops_the_other_process_with_its_checkpoint_kept(store: ArtifactStore) -> None:
    long, short = Job(CountConfig(seed=1, steps=600), label="long"), Job(CountConfig(seed=2, steps=20), label="short")
    # The one that fails comes when both are at work.
    bad = Job(CountConfig(trouble="usage"), inputs={"short": short}, label="bad")
    reports: list[str] = []
    assert pair(reports).launch([long, short, bad], store, lambda event: None) == 2
    assert "bad" in reports[0] and reports[0].endswith(f"resume with: {COMMAND}")
    state = store.state(long)
    assert state.status == "interrupted" and "checkpoint" in state.reason


def test_a_process_that_is_killed_is_named_as_the_cause(store: ArtifactStore) -> None:
    jobs = [Job(CountConfig(seed=seed, steps=600), label=str(seed)) for seed in range(2)]
    killed: set[int] = set()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and not killed:
            owner = next((store.root / ".staging" / "count").glob("*/*-*/heartbeat")).parent.name
            killed.add(int(owner.split("-")[-3]))
            os.kill(next(iter(killed)), signal.SIGKILL)

    reports: list[str] = []
    assert pair(reports).launch(jobs, store, watch) == 7
    assert "was killed by signal 9; the system may have run out of memory" in reports[0]


def test_a_signal_stops_both_processes_with_their_checkpoints(store: ArtifactStore) -> None:
    jobs = [Job(CountConfig(seed=seed, steps=600), label=str(seed)) for seed in range(2)]
    working: set[str] = set()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            working.add(event["label"])
        if len(working) == 2 and not stopped.is_set():
            stopped.set()
            signal.raise_signal(signal.SIGTERM)

    stopped = threading.Event()
    assert pair([]).launch(jobs, store, watch) == 75
    assert {store.state(job).status for job in jobs} == {"interrupted"}
    assert not any(store.state(job).running for job in jobs)
