"""Jobs in several processes under the local launcher: real torchrun, gloo between them, a make-believe work that adds ranks."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from folders import SUPPORT
from make_believe_jobs import CountConfig, MeetConfig

from replication.launch.local import LocalLauncher
from replication.launch.torchrun import Fallen, Talk, fallen, segments
from sarm.job import Job, Resources
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate table1 --profile mini"
TWO = Resources(processes=2, threads=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    return ArtifactStore(tmp_path / "store")


def launcher(reports: list[str], *, keep_going: bool = False) -> LocalLauncher:
    return LocalLauncher(command=COMMAND, keep_going=keep_going, report=reports.append, registry="make_believe_jobs:MAKE_BELIEVE")


def total(store: ArtifactStore, job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store.path(job) / "total.json").read_text())
    return found


def test_a_plan_is_cut_where_the_number_of_processes_changes() -> None:
    plan = [Job(CountConfig(seed=seed), resources=Resources(processes=one)) for seed, one in enumerate([1, 1, 2, 2, 4, 1])]
    cut = segments(plan)
    assert [(one.processes, len(one.jobs)) for one in cut] == [(1, 2), (2, 2), (4, 1), (1, 1)]
    assert [job for one in cut for job in one.jobs] == plan


@pytest.mark.parametrize(
    ("state", "torchruns", "code"),
    [
        ('{"state": "done", "code": 0}', 0, 0),
        ('{"state": "checkpointed", "code": 75}', 1, 75),
        ('{"state": "failed", "code": 7}', 1, 7),
        ('{"state": "running", "code": 0}', 1, 1),
        ('{"state": "running", "code": 0}', -9, -9),
        ('{"state": "done", "code": 0}', 1, 1),
        ("", 1, 1),
    ],
)
def test_the_exit_code_is_the_first_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, torchruns: int, code: int
) -> None:
    monkeypatch.delenv("SARM_STATE_FILE", raising=False)
    if state:
        (tmp_path / "state.json").write_text(state)
    assert Talk(tmp_path).code(torchruns) == code


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        ((-9,), Fallen(0, 9)),
        ((7, -9), Fallen(1, 9)),
        ((-15, -11), Fallen(1, 11)),
        ((-15,), None),
        ((1, 2), None),
        ((), None),
    ],
)
def test_the_process_that_a_signal_ended_is_found_in_what_torchrun_says(codes: tuple[int, ...], found: Fallen | None) -> None:
    # As torch 2.13 writes it.
    entry = "[{rank}]:\n  time      : now\n  host      : x\n  rank      : {rank} (local_rank: {rank})\n  exitcode  : {code} (pid: 47)\n"
    said = "".join(entry.format(rank=rank, code=code) for rank, code in enumerate(codes))
    assert fallen(f"sarm.jobs FAILED\nFailures:\n{said}  error_file: <N/A>\n") == found


def test_a_job_that_one_process_does_is_refused_in_two(store: ArtifactStore) -> None:
    reports: list[str] = []
    jobs = [Job(CountConfig(), label="count", resources=Resources(zero_stage=2))]
    assert launcher(reports).launch(jobs, store, lambda event: None) == 2
    assert "count: resources.count.zero_stage = 2: this kind of work knows zero_stage = 0 alone" in reports[0]


def test_a_process_on_its_own_is_not_taken_for_two(store: ArtifactStore, tmp_path: Path) -> None:
    """The launcher that forgets torchrun."""
    from job_processes import start

    child = start(store, [Job(MeetConfig(), resources=TWO, label="meeting")], tmp_path)
    _, err = child.communicate(timeout=180)
    assert child.returncode == 2 and "resources.processes = 2, but 1 were started" in err


@pytest.mark.slow
def test_processes_do_a_job_together_between_jobs_of_one_process(store: ArtifactStore) -> None:
    before, after = Job(CountConfig(), label="before"), Job(CountConfig(seed=2), label="after")
    meeting = Job(MeetConfig(), inputs={"a": before}, resources=TWO, label="meeting")
    another = Job(MeetConfig(steps=5), inputs={"a": before}, resources=TWO, label="another")
    events: list[dict[str, Any]] = []
    assert launcher([]).launch([before, meeting, another, after], store, events.append) == 0
    assert [event["label"] for event in events if event["event"] == "done"] == ["before", "meeting", "another", "after"]
    assert total(store, meeting) == {"total": 9.0, "processes": 2} and total(store, another)["total"] == 15.0


@pytest.mark.slow
def test_a_stop_is_agreed_checkpointed_and_continued(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.05")
    job = Job(MeetConfig(steps=100), resources=TWO, label="meeting")
    reports: list[str] = []
    told = threading.Event()

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and not told.is_set():
            told.set()
            signal.raise_signal(signal.SIGINT)

    assert launcher(reports).launch([job], store, stop) == 75
    assert "stopped at step" in reports[0] and reports[0].endswith(f"resume with: {COMMAND}")
    assert store.state(job).reason == "stopped with a checkpoint"
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0")
    assert launcher(reports).launch([job], store, lambda event: None) == 0
    assert total(store, job) == {"total": 300.0, "processes": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "trouble", "code", "message"),
    [
        (1, "usage", 2, "process 1: this one does not fit"),
        (0, "crash", 1, "ValueError: this one does not fit"),
        (1, "die", 7, "process 1 of 2 was killed by signal 9"),
        (0, "die", 7, "process 0 of 2 was killed by signal 9"),
    ],
)
def test_a_process_that_fails_takes_the_others_with_it_and_is_named(
    store: ArtifactStore, failing: int, trouble: Any, code: int, message: str
) -> None:
    job = Job(MeetConfig(failing=failing, trouble=trouble), resources=TWO, label="meeting")
    reports: list[str] = []
    assert launcher(reports).launch([job], store, lambda event: None) == code
    assert message in reports[0], reports[0]
    assert not store.state(job).running
