"""A minute of the campaign of kills, and what it has found so far."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

from sarm.store.staging import checkpoint_time


@pytest.mark.slow
@pytest.mark.parametrize("only", ["parent/committing", "group/claiming", "fault/disk full*", "fault/store*"])
def test_a_repeat_after_a_kill_or_a_fault_of_the_disk_gives_the_same_files(only: str) -> None:
    command = [sys.executable, str(ROOT / "tests" / "campaigns" / "kill.py"), "--count", "1", "--seed", "1", "--only", only]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0 and "failures: 0" in done.stdout, done.stdout + done.stderr


def test_a_checkpoint_that_is_renamed_while_another_process_looks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    partial = tmp_path / "checkpoint" / "step-1.partial"
    partial.mkdir(parents=True)
    (partial / "state").write_text("x")
    scan = os.scandir

    def renamed_meanwhile(path: object) -> object:
        if Path(str(path)).name.endswith(".partial") and partial.exists():
            partial.rename(partial.with_name("step-1"))
        return scan(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", renamed_meanwhile)
    assert checkpoint_time(tmp_path) == 0.0
    assert checkpoint_time(tmp_path) > 0.0
