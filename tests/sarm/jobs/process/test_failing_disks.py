"""A disk that fails under a job: the exit code is 7 with one line, whichever change of a file fails first, and the job can go on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT
from make_believe_jobs import MAKE_BELIEVE, CountConfig
from read_only import ReadOnly

from sarm.job import Job, JobRequest
from sarm.jobs.process.events import Events
from sarm.jobs.process.lifecycle import JobProcess
from sarm.store.artifacts import ArtifactStore
from sarm.store.staging import StagingArea

JOB = Job(CountConfig(), label="count")
FULL = Path("/dev/full")


def run(store: ArtifactStore) -> tuple[int, str]:
    """Exit code and stderr of the job in this process."""
    told = io.StringIO()
    process = JobProcess(store=store, events=Events(io.StringIO()), stderr=told, stop_requested=lambda: False, registry=MAKE_BELIEVE)
    return process.run([JobRequest.of(JOB)]), told.getvalue()


def test_a_store_that_becomes_read_only_at_any_change_under_a_job_gives_7(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = ReadOnly(tmp_path / "whole", left=10**6)
        whole.install(patch)
        assert run(ArtifactStore(tmp_path / "whole")) == (0, "")
    assert whole.changes > 8
    told = []
    for left in range(whole.changes):
        store = ArtifactStore(tmp_path / f"after {left}")
        with pytest.MonkeyPatch.context() as patch:
            ReadOnly(store.root, left).install(patch)
            code, said = run(store)
        # Changes after the artifact is in its place (tidying up) may fail without a word.
        good = code == 7 and "read-only file system" in said.lower() and said.count("\n") == 1 if not store.has(JOB) else code in (0, 7)
        told += [] if good else [f"after {left} changes: exit code {code}: {said}"]
        with pytest.MonkeyPatch.context() as patch:
            # What could not be freed is free when its process has ended, as it has for whoever repeats the command.
            patch.setattr(StagingArea, "is_alive", lambda self, folder: False)
            assert run(store)[0] == 0 and store.has(JOB), f"after {left} changes"
    assert not told, "\n".join(told)


def process(tmp_path: Path, trouble: str, before: str = "", stderr: Path | None = None, **environment: str) -> int:
    """The exit code of a job process of its own, after some words of Python."""
    requests = tmp_path / "requests.json"
    job = Job(CountConfig(trouble=trouble))  # type: ignore[arg-type] - one of its words
    requests.write_text(json.dumps([JobRequest.of(job).model_dump(mode="json")]))
    words = [str(requests), "--store", str(tmp_path / "store"), "--registry", "make_believe_jobs:MAKE_BELIEVE"]
    code = f"import sys\n{before}\nfrom sarm.jobs.__main__ import main\nsys.exit(main({words!r}))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(ROOT)]), **environment}
    with (stderr or tmp_path / "stderr").open("w") as log:
        return subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=log, env=env, check=False).returncode


@pytest.mark.parametrize("after", [0, 4])
def test_a_process_whose_store_becomes_read_only_ends_with_7_and_one_line(tmp_path: Path, after: int) -> None:
    shut = "import read_only; read_only.install_from_environment()"
    code = process(tmp_path, "none", shut, READ_ONLY_UNDER=str(tmp_path / "store"), READ_ONLY_AFTER=str(after))
    said = (tmp_path / "stderr").read_text()
    assert code == 7 and "read-only file system" in said.lower() and said.count("\n") == 1, said


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("trouble", "code"), [("disk", 7), ("usage", 2), ("none", 0)])
def test_a_log_on_a_full_disk_does_not_change_the_exit_code(tmp_path: Path, trouble: str, code: int) -> None:
    # Launchers keep a process's stderr in the store; every write to this file gives ENOSPC.
    assert process(tmp_path, trouble, stderr=FULL) == code
