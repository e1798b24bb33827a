"""The Triton kernels without a GPU: in Triton's interpreter, which runs them in Python; and the plain way where there are none."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed; `make test-all` installs it where it can"
)


@pytest.mark.slow
@needs_triton
def test_kernels_equal_float64_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    files = [str(ROOT / "tests" / "gpu" / name) for name in ("test_kernels.py", "test_sae_step.py")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "interpreter", "-ra", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment, cwd=ROOT)
    told = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and told and "skipped" not in done.stdout, done.stdout
    assert int(told[1]) >= 20


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", [80, 86, 90], ids=["A100", "RTX 3090", "H100"])
def test_kernels_are_built_for_the_gpus_of_the_paper_and_read_16_bytes_at_a_time(capability: int, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "built_kernels", str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    built = {name: facts for name, facts in json.loads(done.stdout).items()}
    assert built.keys() == {
        "decode",
        "weight gradients",
        "value gradients",
        "latent sums",
        "update by pairs",
        "update by pairs, small",
        "update",
    }
    for name, facts in built.items():
        assert facts["bytes"] > 0, name
        if name != "latent sums":
            assert facts["wide_loads"] > 0, f"{name} reads narrow pieces"
