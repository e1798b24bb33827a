"""A share of the campaign of hostile input, and what its judgement of a case itself must notice."""

from __future__ import annotations

import subprocess
import sys

import pytest
from folders import ROOT

CAMPAIGN = ROOT / "tests" / "campaigns" / "hostile.py"
# Says what is wrong with how a command ended, for endings that are written here.
JUDGED = """
import sys
sys.path[:0] = [{folder!r}]
from pathlib import Path
from hostile import Case, faults
from forked_command import Ended
case = Case(Path("."), "", ("rows.jsonl",), lambda: 0)
endings = [
    Ended(2, 1.0, "", "replicate: rows.jsonl:3: id: missing\\n"),
    Ended(1, 1.0, "", "replicate: rows.jsonl: ValueError\\n"),
    Ended(2, 1.0, "", "Traceback (most recent call last):\\nrows.jsonl\\n"),
    Ended(6, 1.0, "", "replicate: a file is damaged\\n"),
    Ended(None, 60.0, "", ""),
    Ended(0, 1.0, "Math nan\\n", ""),
    Ended(2, 1.0, "", "rows.jsonl \\x1b[31m\\n"),
]
print([len(faults(one, case)) for one in endings])
"""


def test_what_is_wrong_with_an_ending_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", JUDGED.format(folder=str(CAMPAIGN.parent))], capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 1, 1, 1, 1, 1, 1]\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_share_of_hostile_input_ends_as_documented(seed: int) -> None:
    command = [sys.executable, str(CAMPAIGN), "--count", "60", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0 and "failures: 0" in done.stdout, done.stdout + done.stderr
