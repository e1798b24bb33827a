"""Every run finds the same tests under the same names, so that workers side by side agree on what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT


def collected(folder: str, *, seed: str) -> list[str]:
    """Names of all tests below a folder, as a process of its own finds them; `seed` orders its sets."""
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--import-mode=importlib"]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    command = [sys.executable, "-m", "pytest", *options, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_two_collections_find_the_same_names_in_the_same_order() -> None:
    # Importing torch and all test files lies between the two looks at the clock: more than the two seconds in which a zip counts.
    first, second = collected("tests", seed="1"), collected("tests", seed="2")
    assert len(first) > 1000
    assert [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]] == []
    assert len(set(first)) == len(first)


@pytest.mark.slow
def test_a_name_that_hangs_on_the_clock_or_on_the_order_of_a_set_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "test_unstable.py"
    file.write_text(
        "import time, pytest\n"
        "@pytest.mark.parametrize('one', [time.time_ns()])\ndef test_clock(one): pass\n"
        "@pytest.mark.parametrize('one', sorted({'a', 'b', 'c', 'd', 'e', 'f'}, key=hash))\ndef test_set(one): pass\n"
    )
    first, second = (collected(str(file), seed=seed) for seed in ("1", "2"))
    differing = {re.sub(r"\[.*", "", one).rpartition("::")[2] for one, other in zip(first, second, strict=True) if one != other}
    assert differing == {"test_clock", "test_set"}
