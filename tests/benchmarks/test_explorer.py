"""The benchmark of the explorer at toy size: the section stays small whatever the dictionary's width."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from folders import ROOT


@pytest.mark.slow
def test_the_benchmark_tells_sizes_and_seconds() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "explorer.py"), "--latents", "600", "--items", "20", "--k", "8", "--folder"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["completions"] == 80 and found["bytes"]["section"] < found["bytes"]["page"] < 5_000_000
    assert found["seconds"].keys() == {"edits", "read", "section", "folder"}
