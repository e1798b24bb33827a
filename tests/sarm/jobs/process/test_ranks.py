"""The first process orders, the others follow: over a board of keys that is a dictionary here."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from make_believe_jobs import MAKE_BELIEVE, PieceConfig
from tiny import job_context

from sarm.job import Interrupted, Job, JobConfig, JobContext, JobError, JobRequest, Resources, UsageProblem
from sarm.jobs.process import ranks
from sarm.jobs.process.lifecycle import refuse_processes
from sarm.jobs.process.ranks import Follower, GroupBroken, Leader


class Paper:
    """A board in memory."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.keys[key] = value

    def get(self, key: str) -> bytes:
        return self.keys[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.keys for key in keys)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "FAILURE_SECONDS", 0.3)
    monkeypatch.setattr(ranks, "POLL_SECONDS", 0.01)


def work(folder: Path, label: str = "piece") -> tuple[JobRequest, JobContext]:
    request = JobRequest.of(Job(PieceConfig(layer=1), label=label))
    return request, job_context(folder)


def follow(board: Paper) -> tuple[threading.Thread, list[int]]:
    codes: list[int] = []
    follower = Follower(board=board, rank=1, registry=MAKE_BELIEVE, stop_requested=lambda: False, stderr=io.StringIO())
    thread = threading.Thread(target=lambda: codes.append(follower.run()), daemon=True)
    thread.start()
    return thread, codes


def test_the_others_run_the_same_work_and_leave_when_dismissed(tmp_path: Path) -> None:
    board = Paper()
    thread, codes = follow(board)
    leader = Leader(board=board, size=2)
    for number in range(2):
        one = work(tmp_path / str(number))
        leader.together([one], lambda: None)
        assert (tmp_path / str(number) / "output" / "piece.json").read_text() == "[1, 1]", "the follower wrote it"
    leader.dismiss()
    thread.join(timeout=10)
    assert codes == [0] and "left/1" in board.keys


def test_what_another_process_raises_is_raised_here_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: JobConfig, context: JobContext) -> None:
        raise UsageProblem("it does not fit")

    monkeypatch.setattr("make_believe_jobs.piece", fail)
    board = Paper()
    follow(board)
    leader = Leader(board=board, size=2)
    with pytest.raises(JobError, match="process 1: it does not fit") as caught:
        leader.together([work(tmp_path)], lambda: None)
    assert caught.value.exit_code == 2 and not leader.broken, "both are back: the next job can run"
    leader.dismiss()


def test_a_stop_is_the_first_processes_own_error(tmp_path: Path) -> None:
    def stop() -> None:
        raise Interrupted("stopped at step 3")

    board = Paper()
    follow(board)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        Leader(board=board, size=2).together([work(tmp_path)], stop)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RuntimeError("[gloo] Connection closed by peer"), GroupBroken, r"process 1 of 2 died or hangs \(RuntimeError: \[gloo\]"),
        (ValueError("our own"), ValueError, "our own"),
        (UsageProblem("too few pairs"), UsageProblem, "too few pairs"),
    ],
)
def test_a_process_that_does_not_come_back_breaks_the_group(
    tmp_path: Path, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail() -> None:
        raise error

    leader = Leader(board=Paper(), size=2)
    with pytest.raises(kind, match=message):
        leader.together([work(tmp_path)], fail)
    assert leader.broken
    leader.dismiss()


def test_processes_and_zero_stages_are_refused_where_one_process_does_the_work() -> None:
    class Shared(PieceConfig):
        data_parallel = True
        zero_stages = (0, 1)

    for resources, word in ((Resources(processes=2), "processes"), (Resources(zero_stage=1), "zero_stage")):
        request = JobRequest.of(Job(PieceConfig(layer=1), resources=resources, label="piece"))
        with pytest.raises(UsageProblem, match=rf"piece: resources\.piece\.{word} = \d: this kind of work"):
            refuse_processes(request, PieceConfig(layer=1))
        refuse_processes(request, Shared(layer=1))
