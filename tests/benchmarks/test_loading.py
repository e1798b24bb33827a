"""The benchmark of loading runs at toy size; it checks by itself that all ways give the same tensors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

TOY = ["--hidden", "32", "--intermediate", "64", "--layers", "2", "--heads", "2", "--vocabulary", "50", "--latents", "64"]


def run(folder: Path, *options: str) -> str:
    """The benchmark's standard output; what it wrote for the time is gone."""
    command = [sys.executable, str(ROOT / "benchmarks" / "loading.py"), *TOY, "--repeats", "1", "--folder", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_ways_give_the_same_tensors_and_are_timed(tmp_path: Path, dtype: str) -> None:
    told = run(tmp_path, "--dtype", dtype, "--shard", "20000")
    assert "backbone: 4 ways give the same 20 tensors, bit for bit" in told
    assert "reward model: 3 ways give the same 25 tensors, bit for bit" in told
    assert len(re.findall(r"ours \d+\.\d+ s, \d+\.\d+ times the bare tensors; the old way \d+\.\d+ s, \d+\.\d+ times ours", told)) == 2
    assert "SHA-256 of the reward model's files" in told
