from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT, SUPPORT
from make_believe_jobs import CountConfig, SumConfig

from replication.launch.interface import Launcher
from replication.launch.local import LocalLauncher
from sarm.job import Job, topological_order
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate table1 --profile mini"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    return ArtifactStore(tmp_path / "store")


def launcher(reports: list[str], *, keep_going: bool = False) -> Launcher:
    return LocalLauncher(command=COMMAND, keep_going=keep_going, report=reports.append, registry="make_believe_jobs:MAKE_BELIEVE")


def test_a_plan_is_run_by_one_child_and_its_events_are_watched(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_LEDGER", str(tmp_path / "ledger"))
    counts = {name: Job(CountConfig(seed=seed), label=name) for seed, name in enumerate("ab")}
    total = Job(SumConfig(), inputs=counts, label="total")
    events: list[dict[str, Any]] = []
    reports: list[str] = []
    assert launcher(reports).launch(topological_order([total]), store, events.append) == 0
    assert [event["label"] for event in events if event["event"] == "done"] == ["a", "b", "total"]
    assert store.has(total) and reports == []
    assert len(set((tmp_path / "ledger").read_text().splitlines())) == 1, "one process did both"


def test_an_empty_plan_starts_nothing(store: ArtifactStore) -> None:
    assert launcher([]).launch([], store, print) == 0
    assert not store.root.exists()


def test_a_failure_is_reported_with_job_log_last_lines_and_the_command_that_resumes(
    store: ArtifactStore, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, good = Job(CountConfig(trouble="crash"), label="bad count"), Job(CountConfig(seed=1), label="good count")
    reports: list[str] = []
    assert launcher(reports).launch([bad, good], store, lambda event: None) == 1
    (report,) = reports
    assert f"bad count (count/{bad.short_key}) failed: ValueError: first line" in report
    assert str(store.root / ".logs") in report and "  | ValueError: first line" in report
    assert report.count("  | ") <= 20 and report.endswith(f"resume with: {COMMAND}")
    assert not store.has(good) and "Traceback" not in capfd.readouterr().err


def test_keep_going_runs_what_does_not_need_the_failed_job(store: ArtifactStore) -> None:
    bad, good = Job(CountConfig(trouble="usage"), label="bad"), Job(CountConfig(seed=1), label="good")
    reports: list[str] = []
    plan = topological_order([Job(SumConfig(), inputs={"a": bad}), good])
    assert launcher(reports, keep_going=True).launch(plan, store, lambda event: None) == 2
    assert store.has(good) and "bad" in reports[0]


def test_native_stderr_of_the_child_stays_off_the_terminal(store: ArtifactStore, capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher([]).launch([Job(CountConfig(trouble="print"))], store, lambda event: None) == 0
    assert capfd.readouterr() == ("", "")
    assert "native code says hello" in "".join(path.read_text() for path in (store.root / ".logs").glob("process-*"))


def test_a_child_that_is_killed_is_reported_and_the_work_resumes(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.05")
    job = Job(CountConfig(steps=40), label="slow")
    reports: list[str] = []

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["done"] >= 3:
            work = store.staging.look("count", job.key)
            if work is not None and work.running:
                os.kill(int(work.folder.name.split("-")[1]), signal.SIGKILL)

    assert launcher(reports).launch([job], store, kill) == 7
    assert "killed by signal 9" in reports[0] and COMMAND in reports[0]
    assert launcher(reports).launch([job], store, lambda event: None) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_forwarded_and_the_checkpoint_awaited(store: ArtifactStore, tmp_path: Path, number: signal.Signals) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from make_believe_jobs import CountConfig
        from replication.launch.local import LocalLauncher
        from sarm.job import Job
        from sarm.store.artifacts import ArtifactStore
        import json
        launcher = LocalLauncher(command="replicate table1", registry="make_believe_jobs:MAKE_BELIEVE")
        watch = lambda event: print(json.dumps(event), flush=True)
        sys.exit(launcher.launch([Job(CountConfig(steps=40), label="slow")], ArtifactStore(Path(sys.argv[1])), watch))
    """)
    paths = os.pathsep.join([str(SUPPORT), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, "MAKE_BELIEVE_SECONDS": "0.1"}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["done"] >= 2:
            break
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75 and "slow (count/" in err and "stopped" in err and "resume with: replicate table1" in err
    state = store.state(Job(CountConfig(steps=40)))
    assert state.status == "interrupted" and not state.running and "checkpoint" in state.reason


def test_a_watcher_that_fails_does_not_leave_a_child_behind(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKE_BELIEVE_SECONDS", "0.1")
    job = Job(CountConfig(steps=100))

    def fail(event: dict[str, Any]) -> None:
        raise RuntimeError("the display broke")

    with pytest.raises(RuntimeError):
        launcher([]).launch([job], store, fail)
    assert not store.state(job).running


def test_an_unwritable_store_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Exception, match="choose another with --store") as caught:
        launcher([]).launch([Job(CountConfig())], ArtifactStore(tmp_path / "file"), lambda event: None)
    assert getattr(caught.value, "exit_code", 0) == 7
