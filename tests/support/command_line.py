"""`replicate` as a process of its own, in which torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from folders import ROOT

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")

sys.meta_path.insert(0, NoTorch())
sys.argv = ["replicate", *sys.argv[1:]]
from replication.cli.app import main
main()
"""


def replicate(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command printed and its exit code; only these environment variables are set."""
    base = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **environment}
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=base, cwd=cwd or ROOT, timeout=60)
