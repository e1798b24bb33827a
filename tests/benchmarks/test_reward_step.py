"""The benchmarks of reward step and harvest run, at sizes that say nothing about speed."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import pytest
from folders import DATA, ROOT

BENCHMARKS = ROOT / "benchmarks"


def test_the_gpu_script_measures_harvest_and_reward_step_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module("gpu_llama").report(toy=True)
    assert [row["what"] for row in rows] == ["product", "harvest", "reward step"]
    assert rows[0]["tflop_per_second"] > 0
    for row in rows[1:]:
        figures = {name: value for name, value in row.items() if not isinstance(value, str)}
        assert {"samples_per_second", "tokens_per_second", "share_of_product_rate", "times_faster_than_padded"} <= figures.keys()
        assert all(math.isfinite(value) and value > 0 for value in figures.values())


def test_the_flop_count_is_that_of_the_products_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("gpu_llama")
    shape = script.TOY[0]._replace(hidden=8, intermediate=20, heads=2, key_heads=1, head_dim=4, layer=2)
    # Weights: q and o 8 x 8, k and v 8 x 4, three of 8 x 20. Scores: 3 tokens and 2 that see 3 more, 6 + 3 + 6 = 15 products of 8, twice.
    full, keys = 64 + 64 + 32 + 32 + 3 * 160, 64
    expected = 2 * (5 * full + 15 * 8 * 2) + 2 * (5 * keys + 2 * (full - keys))
    assert script.forward_flop(shape, [(3, 0), (2, 3)], 2) == expected


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "preference").is_dir(), reason=f"no pairs in {DATA}; set SARM_DATA")
@pytest.mark.parametrize("script", [["reward_step.py", "--no-peers"], ["ablation.py", "--sentences", "40", "--latents", "64", "--k", "4"]])
def test_the_ways_of_reward_training_agree_on_real_pairs(script: list[str]) -> None:
    sizes = ["--steps", "1", "--repeats", "1", "--threads", "1", "--batch-pairs", "2", "--max-length", "200"]
    command = [sys.executable, str(BENCHMARKS / script[0]), "--data", str(DATA), *sizes, *script[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stderr
    assert "pairs/s" in done.stdout
