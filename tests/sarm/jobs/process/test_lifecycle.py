from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from job_processes import start
from make_believe_jobs import MAKE_BELIEVE, CountConfig, PieceConfig, SumConfig

from sarm.job import Job, JobError, JobRequest
from sarm.jobs.__main__ import main
from sarm.jobs.process.events import Events
from sarm.jobs.process.lifecycle import JobProcess, worst
from sarm.jobs.process.registry import JOBS, REGISTRY, load
from sarm.store.artifacts import ArtifactStore

SLOW = Job(CountConfig(steps=40), label="slow count")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


class Run:
    """One in-process run: exit code, events, what went to stderr."""

    def __init__(self, store: ArtifactStore, jobs: Sequence[Job], **options: Any) -> None:
        stream, self.stderr = io.StringIO(), io.StringIO()
        requests = [job if isinstance(job, JobRequest) else JobRequest.of(job) for job in jobs]
        options = {"stop_requested": lambda: False, "registry": MAKE_BELIEVE} | options
        self.code = JobProcess(store=store, events=Events(stream), stderr=self.stderr, **options).run(requests)
        self.events = [json.loads(line) for line in stream.getvalue().splitlines()]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events if event["event"] != "progress"]


def events_of(child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    for line in child.stdout:
        yield json.loads(line)


def wait_for_progress(child: subprocess.Popen[str], done: int) -> None:
    for event in events_of(child):
        if event["event"] == "progress" and event["done"] >= done:
            return
    pytest.fail("the process ended too early")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    """The files of SLOW when nothing disturbs it."""
    store = ArtifactStore(tmp_path / "undisturbed")
    assert Run(store, [SLOW]).code == 0
    return content(store.path(SLOW))


def test_requests_are_run_in_order_and_a_second_run_starts_nothing(store: ArtifactStore) -> None:
    a = Job(CountConfig(seed=1), label="a")
    total = Job(SumConfig(), inputs={"a": a}, label="sum")
    first = Run(store, [a, total])
    assert first.code == 0 and first.names() == ["start", "done", "start", "done"] and first.stderr.getvalue() == ""
    assert store.manifest(total).inputs == {"a": ("count", a.key)} and store.manifest(a).peak_memory_bytes > 10**6
    assert first.events[-1] | {"seconds": 0, "peak_memory_bytes": 0} == {
        "event": "done", "key": total.key, "kind": "sum", "label": "sum", "seconds": 0, "peak_memory_bytes": 0,
    }  # fmt: skip
    assert Run(store, [a, total]).names() == ["reused", "reused"]


def test_a_corrupt_artifact_is_rebuilt(store: ArtifactStore) -> None:
    job = Job(CountConfig())
    Run(store, [job])
    path = store.path(job) / "deep" / "chain.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"0", b"1"))
    assert Run(store, [job]).names() == ["start", "done"] and path.read_bytes() == good


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        ("usage", 2, "steps do not divide"),
        ("crash", 1, "ValueError: first line"),
        ("memory", 7, "out of memory"),
        ("card is full", 7, "of which 1.21 GiB is free. Process 4711 has 22.30 GiB memory in use."),
        ("card is busy", 7, "busy or unavailable); free it or choose another"),
        ("disk", 7, "bytes free"),
        ("link", 6, "wrote a link"),
    ],
)
def test_a_failure_gives_its_exit_code_one_line_and_a_log(store: ArtifactStore, trouble: str, code: int, message: str) -> None:
    job = Job(CountConfig(trouble=trouble), label="bad")
    run = Run(store, [job, Job(CountConfig())])
    assert run.code == code and run.names() == ["start", "failed"]
    assert message in run.events[-1]["message"] and run.events[-1]["code"] == code
    assert message in run.stderr.getvalue() and "Traceback" not in run.stderr.getvalue() and run.stderr.getvalue().count("\n") == 1
    log = Path(run.events[-1]["log"]).read_text()
    # What was foreseen is told in its line; only what nobody foresaw needs the way to it.
    assert ("Traceback" in log) == (trouble not in ("link", "usage"))
    assert not store.has(job) and not store.state(job).running
    (work,) = store.staging.all()
    assert work.key == job.key and message in work.failure and store.state(job).reason.startswith("failed ")


def test_work_that_failed_and_goes_on_is_no_failure_any_more(store: ArtifactStore, tmp_path: Path) -> None:
    job = JobRequest.of(SLOW)
    folder = store.staging.slot(job.kind, job.key) / "free-0"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "failure.txt").write_text("card lost\n", encoding="utf-8")
    (folder / "request.json").write_text(job.model_dump_json(), encoding="utf-8")
    assert [work.failure for work in store.staging.all()] == ["card lost"]
    assert Run(store, [SLOW], stop_requested=iter([False, False, True, True, True]).__next__).code == 75
    (stopped,) = store.staging.all()
    assert (stopped.failure, store.state(SLOW).reason.partition(" ")[0]) == ("", "stopped")


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_card_that_is_lost_in_mid_job_ends_the_process_and_the_command_that_goes_on_is_named(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, keep_going: bool
) -> None:
    job, other = Job(CountConfig(steps=5), label="count"), Job(CountConfig(seed=9), label="other")
    monkeypatch.setenv("MAKE_BELIEVE_CARD_IS_LOST", "2")
    run = Run(store, [job, other], keep_going=keep_going, command="replicate table1 --profile paper")
    assert run.code == 1 and run.names() == ["start", "failed"], "nothing more can be computed in this process"
    message = "the GPU failed (CUDA error: unspecified launch failure); its last checkpoint is kept; "
    message += "go on with: replicate table1 --profile paper"
    assert run.events[-1]["message"] == message and run.stderr.getvalue() == f"count: {message}\n"
    monkeypatch.delenv("MAKE_BELIEVE_CARD_IS_LOST")
    again = Run(store, [job, other])
    assert again.code == 0 and "starts at step 2" in store.log(job).read_text()


def test_keep_going_leaves_out_only_what_needs_the_failed_job(store: ArtifactStore) -> None:
    bad, good = Job(CountConfig(trouble="crash"), label="bad"), Job(CountConfig(seed=9), label="good")
    needs_bad, needs_good = Job(SumConfig(), inputs={"a": bad}), Job(SumConfig(), inputs={"a": good})
    deeper = Job(SumConfig(factor=2), inputs={"a": bad, "b": good})
    run = Run(store, [bad, needs_bad, good, needs_good, deeper], keep_going=True)
    assert run.code == 1 and run.names() == ["start", "failed", "skipped", "start", "done", "start", "done", "skipped"]
    assert store.has(needs_good) and not store.has(needs_bad)


def test_a_missing_or_corrupt_input_is_named_with_the_command_that_builds_it(store: ArtifactStore) -> None:
    a = Job(CountConfig(), label="a")
    total = Job(SumConfig(), inputs={"a": a}, label="sum")
    run = Run(store, [total], command="replicate table1 --profile mini")
    assert run.code == 5 and "MissingArtifact: input 'a' of sum" in run.stderr.getvalue()
    assert "run: replicate table1 --profile mini" in run.stderr.getvalue()
    Run(store, [a])
    (store.path(a) / "metrics.jsonl").write_text("{}")
    assert Run(store, [total]).code == 6
    assert Run(store, [a, total]).code == 0


def test_a_request_that_does_not_fit_its_key_or_this_code_is_refused_before_anything_runs(store: ArtifactStore) -> None:
    good, other = JobRequest.of(Job(CountConfig())), JobRequest.of(Job(CountConfig(seed=1)))
    assert Run(store, [good, other.model_copy(update={"config": {"seed": 2}})]).code == 6
    unknown = Run(store, [good, other.model_copy(update={"kind": "cuont"})])
    assert unknown.code == 2 and "did you mean 'count'" in unknown.stderr.getvalue()
    wrong = Run(store, [good, other.model_copy(update={"config": {"seed": "x", "stepz": 1}})])
    assert wrong.code == 2 and "seed:" in wrong.stderr.getvalue() and "stepz:" in wrong.stderr.getvalue()
    assert not store.has(good)


def test_jobs_that_share_a_pass_are_run_by_one_call_with_an_artifact_each(store: ArtifactStore) -> None:
    pieces = [Job(PieceConfig(layer=layer), label=f"layer {layer}") for layer in (1, 2, 3)]
    other = Job(PieceConfig(layer=1, seed=1))
    assert Run(store, pieces[:1]).code == 0
    run = Run(store, [*pieces, other])
    assert run.code == 0 and run.names() == ["reused", "start", "start", "done", "done", "start", "done"]
    counts = [json.loads((store.path(job) / "piece.json").read_text()) for job in [*pieces, other]]
    assert counts == [[1, 1], [2, 2], [3, 2], [1, 1]]


def test_the_registry_names_every_kind_once_and_a_missing_function_is_a_clear_error() -> None:
    assert all(config_type.kind == kind and target.endswith(f":{kind}") for kind, (config_type, target) in JOBS.items())
    assert set(REGISTRY.fused) <= set(JOBS)
    with pytest.raises(JobError, match="not installed"):
        load("sarm.jobs.nowhere:thing")
    with pytest.raises(JobError, match="does not exist"):
        load("sarm.jobs.process.registry:thing")


def test_a_stop_request_between_jobs_ends_with_75(store: ArtifactStore) -> None:
    run = Run(store, [SLOW], stop_requested=lambda: True)
    assert run.code == 75 and run.names() == ["interrupted"]


def test_several_failures_give_the_code_that_comes_first() -> None:
    assert worst([]) == 0 and worst([5, 1, 7]) == 7 and worst([1, 5]) == 1 and worst([6, 2]) == 2


def test_progress_is_told_at_most_five_times_a_second_but_always_at_the_end(store: ArtifactStore) -> None:
    progress = [event for event in Run(store, [Job(CountConfig(steps=200))]).events if event["event"] == "progress"]
    assert len(progress) < 20 and progress[-1]["done"] == 200 and progress[0]["unit"] == "steps"


def test_metrics_are_mirrored_to_tensorboard_on_request(store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = Run(store, [Job(CountConfig())], tensorboard=str(tmp_path / "board"))
    assert run.code == 0 and run.stderr.getvalue().count("tensorboard is not installed") == 1
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    job = Job(CountConfig(seed=1))
    assert Run(store, [job], tensorboard=str(tmp_path / "board")).code == 0
    assert list((tmp_path / "board" / f"count-{job.short_key}").glob("events.*"))


def test_prints_of_libraries_and_native_code_do_not_garble_the_events(store: ArtifactStore, tmp_path: Path) -> None:
    job = Job(CountConfig(trouble="print"))
    child = start(store, [job], tmp_path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert {json.loads(line)["event"] for line in out.splitlines()} == {"start", "progress", "done"}
    assert "native code says hello" in err and "a library says hello" in err
    assert "a library says hello" in store.log(job).read_text()


def test_two_processes_asked_for_the_same_artifact_do_the_work_once(
    store: ArtifactStore, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    ledger = tmp_path / "ledger"
    pair = [start(store, [SLOW], tmp_path, MAKE_BELIEVE_SECONDS="0.05", MAKE_BELIEVE_LEDGER=str(ledger)) for _ in range(2)]
    events = [[json.loads(line)["event"] for line in child.communicate(timeout=60)[0].splitlines()] for child in pair]
    assert [child.returncode for child in pair] == [0, 0]
    assert len(ledger.read_text().splitlines()) == 1
    loser = next(names for names in events if "start" not in names)
    assert loser == ["waiting", "reused"]
    assert content(store.path(SLOW)) == expected


def test_a_killed_run_resumes_from_its_checkpoint_and_gives_the_same_bytes(
    store: ArtifactStore, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    child = start(store, [SLOW], tmp_path, MAKE_BELIEVE_SECONDS="0.05")
    wait_for_progress(child, 5)
    child.kill()
    deadline = time.monotonic() + 10
    while store.state(SLOW).running and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not store.state(SLOW).running, "a zombie is dead, also before its parent has reaped it"
    child.communicate()
    assert "checkpoint" in store.state(SLOW).reason
    assert Run(store, [SLOW]).code == 0
    starts = [line.split()[-1] for line in store.log(SLOW).read_text().splitlines() if "starts at step" in line]
    assert starts[0] == "0" and len(starts) == 2 and int(starts[1]) >= 5
    assert content(store.path(SLOW)) == expected


def test_a_waiting_process_goes_on_when_the_working_one_is_killed(store: ArtifactStore, tmp_path: Path, expected: dict[str, bytes]) -> None:
    worker = start(store, [SLOW], tmp_path, MAKE_BELIEVE_SECONDS="0.2")
    wait_for_progress(worker, 2)
    waiter = start(store, [SLOW], tmp_path)
    assert next(events_of(waiter))["event"] == "waiting"
    worker.kill()
    worker.communicate()
    names = [event["event"] for event in events_of(waiter) if event["event"] != "progress"]
    waiter.communicate(timeout=60)
    assert waiter.returncode == 0 and names == ["start", "done"] and content(store.path(SLOW)) == expected


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop file", "reader gone"])
def test_a_stop_gives_75_and_the_same_command_continues(store: ArtifactStore, tmp_path: Path, expected: dict[str, bytes], how: str) -> None:
    stop = tmp_path / "stop"
    child = start(store, [SLOW], tmp_path, MAKE_BELIEVE_SECONDS="0.1", SARM_STOP_FILE=str(stop))
    wait_for_progress(child, 2)
    if how == "stop file":
        stop.touch()
    elif how == "reader gone":
        assert child.stdout is not None
        child.stdout.close()
    else:
        child.send_signal(getattr(signal, how))
    assert child.wait(timeout=30) == 75
    if how != "reader gone":
        assert list(events_of(child))[-1]["event"] == "interrupted"
    assert store.state(SLOW).status == "interrupted" and not store.state(SLOW).running
    assert Run(store, [SLOW]).code == 0 and content(store.path(SLOW)) == expected
    # Two steps of a tenth of a second before the stop, none of them in the run that ended it.
    manifest = store.manifest(SLOW)
    assert manifest.seconds >= 0.2 and manifest.started <= manifest.ended


def test_a_second_sigint_kills(store: ArtifactStore, tmp_path: Path) -> None:
    child = start(store, [SLOW], tmp_path, MAKE_BELIEVE_SECONDS="1")
    wait_for_progress(child, 1)
    child.send_signal(signal.SIGINT)
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode in (-signal.SIGINT, 75)


def test_a_store_on_a_full_disk_gives_7_and_works_again_with_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a tiny tmpfs cannot be mounted here")
    try:
        store = ArtifactStore(disk / "store")
        first = Job(CountConfig(seed=3))
        assert Run(store, [first]).code == 0
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as out, pytest.raises(OSError, match="No space"):
            while True:
                out.write(b"x" * 4096)
        run = Run(store, [Job(CountConfig(seed=4))])
        assert run.code == 7 and "bytes free" in run.stderr.getvalue() and str(store.root) in run.stderr.getvalue()
        assert store.has(first)
        ballast.unlink()
        assert Run(store, [Job(CountConfig(seed=4))]).code == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_malformed_request_file_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "requests.json"
    path.write_text("[{}]")
    assert main([str(path), "--store", str(tmp_path / "store")]) == 2
    assert "requests.json is not a file of job requests" in capsys.readouterr().err
