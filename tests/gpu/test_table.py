"""A tiny Table 1 from nothing to its files, in bfloat16 under DeepSpeed, on a GPU and on a CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import ROOT
from tiny_profile import write_profile

NEEDED = ("pydantic", "typer", "rich", "jinja2", "nupunkt", "deepspeed", "scipy", "statsmodels", "sklearn")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}")
PRECISION = ["reward.dtype=bfloat16", "scoring.dtype=bfloat16", "sae.dtype=bfloat16", "sae.backbone_dtype=bfloat16"]


@pytest.mark.slow
def test_a_tiny_table_in_bfloat16_under_deepspeed(device: torch.device, tmp_path: Path) -> None:
    resources = ["resources.zero_stage=2", *(["resources.gpus=1"] if device.type == "cuda" else [])]
    command = [sys.executable, "-m", "replication.cli", "table1", "--profile", str(write_profile(tmp_path)), "--yes"]
    command += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    command += [part for one in (*PRECISION, *resources) for part in ("--set", one)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "tiny" / "table1.results.json").read_text())
    assert ("sarm-4b", "rewardbench2", "Overall") in {(one["model"], one["benchmark"], one["name"]) for one in results["metrics"]}
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "store").rglob("manifest.json")]
    trained = [one for one in manifests if one["kind"] in ("train_sae", "train_reward")]
    assert {one["kind"] for one in trained} == {"train_sae", "train_reward"}
    for one in trained:
        assert (one["config"]["dtype"], one["resources"]["zero_stage"]) == ("bfloat16", 2)
        assert bool(one["hardware"]["gpus"]) == (device.type == "cuda") == (one["peak_gpu_memory_bytes"] > 0)
