"""One tiny `replicate table1` as a process: started, waited for, and what it left compared byte for byte."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from tiny_profile import PROFILE  # noqa: E402 - the path above leads to it

# Six steps of a language model, ten of an SAE, four of a reward model, a checkpoint after each.
STEPS = {"steps = 2,": "steps = 6,", "\nvectors = 128": "\nvectors = 640"}
TRAININGS = ("pretrain_backbone", "train_sae", "train_reward")
IN_GROUP = ("train_sae", "train_reward")
# What tells when, how long and by which command, and not what was found.
OF_THE_RUN = frozenset({"seconds", "started", "ended", "peak_memory_bytes", "peak_memory", "peak_gpu_memory_bytes", "cost", "command"})
KEY = re.compile(r"/[0-9a-f]{12}")
NUMBER = re.compile(r"\d+\.\d+")
# Far more than a run takes on a core of its own: others may use that core too.
LONGEST_SECONDS = 900.0


def copy_code(folder: Path) -> Path:
    """A copy of the project to run, so that who edits or commits meanwhile changes no table: tables name the code's commit."""
    code = folder / "code"
    for part in ("sarm", "replication", "tables/published", "tables/templates", "slurm"):
        shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
    # What is imported hundreds of times is compiled once.
    compileall.compile_dir(code, quiet=2)
    return code


def write_profile(folder: Path, *, processes: int) -> Path:
    """The tiny profile with checkpoints at every step; both trainings of the paper in so many processes."""
    text = PROFILE.format(slot="large")
    for before, now in STEPS.items():
        text = text.replace(before, now, 1)
    for kind in TRAININGS:
        several = f"processes = {processes}\n" if kind in IN_GROUP and processes > 1 else ""
        text += f"\n[resources.{kind}]\n{several}checkpoint_minutes = 1e-6\n"
    path = folder / f"tiny-{processes}.toml"
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True)
class Place:
    """Where one run works: its store, its tables, its temporary files, and the profile."""

    folder: Path
    profile: Path
    workers: int = 1

    @property
    def store(self) -> Path:
        """The store."""
        return self.folder / "store"

    @property
    def rendered(self) -> Path:
        """Where tables go."""
        return self.folder / "rendered"

    def start(self, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """Start the command. What it says goes to `said.txt`, which is written anew."""
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        words = ["table1", "--profile", str(self.profile), "--yes", "--workers", str(self.workers)]
        command = [sys.executable, "-m", "replication.cli", *words, "--store", str(self.store), "--out", str(self.rendered)]
        paths = [*filter(None, [environment.get("PYTHONPATH", "")]), str(self.folder.parent / "code")]
        own = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(temporary), "NO_COLOR": "1"}
        with (self.folder / "said.txt").open("w", encoding="utf-8") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, text=True, env={**os.environ, **environment, **own}, cwd=self.folder)

    def run(self, environment: Mapping[str, str] = {}) -> int:
        """Run to the end; gives the exit code."""
        child = self.start(environment)
        try:
            return child.wait(timeout=LONGEST_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
            child.kill()
            code = child.wait()
            if isinstance(why, KeyboardInterrupt):
                raise
            return code

    def said(self) -> str:
        """What the last run said."""
        return (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")

    def contents(self) -> dict[str, str]:
        """SHA-256 of every artifact's files and of every table; of manifests and results without times and memory."""
        found = {}
        for root in (self.store, self.rendered):
            for path in sorted(root.rglob("*")):
                name = path.relative_to(self.folder)
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    found[str(name)] = hashlib.sha256(_lasting(path)).hexdigest()
        return found


def _lasting(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_without_times(json.loads(content))).encode()
    if path.suffix in (".md", ".tex", ".html"):
        # The list of artifacts tells how long each took.
        lines = content.decode("utf-8").split("\n")
        return "\n".join(NUMBER.sub("", line) if KEY.search(line) else line for line in lines).encode()
    return content


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(inner) for name, inner in value.items() if name not in OF_THE_RUN}
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    return value


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names of files that are missing, too many or other than they should be."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
