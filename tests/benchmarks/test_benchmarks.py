"""Benchmarks run at toy size; each checks by itself that all ways compute the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from folders import ROOT


def run(name: str, *options: str) -> str:
    """A benchmark's standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


TOY = ("--hidden", "32", "--latents", "256", "--k", "4", "--batch", "32", "--steps", "2", "--repeats", "1", "--threads", "1")


@pytest.mark.slow
def test_all_forms_of_the_step_lose_the_same_and_every_saving_is_timed() -> None:
    told = run("sae_step.py", *TOY, "--no-sparsify", "--ablation")
    assert told.count("equal the dense loop's") == 17
    assert "encoder + topk + adam =" in told and "TopK by groups" in told


@pytest.mark.slow
def test_one_pass_of_a_sweep_gives_the_saes_of_separate_runs() -> None:
    told = run("sweep.py", "--hidden", "16", "--layers", "4", "--vectors", "64", "--batch", "16", "--repeats", "1", "--threads", "1")
    assert "the 9 SAEs of one pass equal those trained alone, byte by byte" in told


def test_ties_scores_from_sums_are_those_of_pooled_rows_and_faster() -> None:
    told = run("ties_left_out.py", "--prompts", "40", "--repeats", "1", "--threads", "1")
    assert "scores without each prompt agree" in told and "rows pooled anew" in told.splitlines()[-1]


@pytest.mark.slow
def test_disagreeing_losses_are_refused() -> None:
    code = (
        "import sys; sys.path.insert(0, 'benchmarks')\n"
        "from sae_step import assert_losses_agree\n"
        "assert_losses_agree({'dense': [1.0, 0.5], 'ours': [1.0, 0.52]}, first=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert "losses of ours differ from the dense loop's by 0.0e+00 at first and 4.0e-02 later" in done.stderr


@pytest.mark.slow
def test_the_report_page_is_weighed_and_the_same_each_time() -> None:
    told = run("report_page.py", "--seeds", "1", "--latents", "300", "--rounds", "2")
    weighed = {line[:20].strip(): float(line[20:]) for line in told.splitlines()}
    assert weighed["reports"] == 7 and 0.5 < weighed["page, MB"] < 5 and 0 < weighed["of it explorer, MB"] < weighed["page, MB"]
