"""The benchmarks of reward step, harvest and sizes of passes run, at sizes that say nothing about speed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from folders import DATA, ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "preference").is_dir(), reason=f"no pairs in {DATA}; set SARM_DATA")
@pytest.mark.parametrize(
    "script",
    [
        ["reward_step.py", "--no-peers"],
        ["ablation.py", "--sentences", "40", "--latents", "64", "--k", "4"],
        ["pass_tokens.py", "--sentences", "40", "--rows", "8", "--latents", "64", "--k", "4", "--sizes", "2048,256"],
    ],
)
def test_the_ways_of_reward_training_agree_on_real_pairs(script: list[str]) -> None:
    sizes = ["--steps", "1", "--repeats", "1", "--threads", "1", "--batch-pairs", "2", "--max-length", "200"]
    command = [sys.executable, str(BENCHMARKS / script[0]), "--data", str(DATA), *sizes, *script[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    assert "pairs/s" in done.stdout
