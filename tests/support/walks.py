"""Walks in `docs/walks`: their console blocks, what was typed and what was shown, and whether a new run shows the same."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from folders import ROOT

WALKS = ROOT / "docs" / "walks"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What a machine, a clock or a draw decides; the words around it must stay.
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")
CHANGING = (
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "KEY"),
    (re.compile(r"\d+(?:\.\d+)? (?:s|min|h)\b"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:\+00:00)?"), "WHEN"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True)
class Step:
    """A command and what it printed, with the exit code's line where it is not 0."""

    command: str
    shown: str


def steps(text: str) -> list[list[Step]]:
    """The steps of each console block; a command begins with `$ ` and goes on after a backslash at the line's end."""
    blocks = []
    for found in BLOCK.finditer(text):
        parts = re.split(r"^\$ ", found[1], flags=re.MULTILINE)
        assert not parts[0].strip(), f"a console block begins with a command: {parts[0]!r}"
        blocks.append([_step(part) for part in parts[1:]])
    return blocks


def _step(part: str) -> Step:
    lines = part.split("\n")
    end = next(number for number, line in enumerate(lines) if not line.endswith("\\"))
    return Step("\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :]).rstrip("\n"))


def run(command: str, *, where: Path, environment: Mapping[str, str]) -> str:
    """What a command of a walk prints in a terminal of 80 columns; an exit code other than 0 as a last line."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "SARM_DATA") if name in os.environ}
    path = f"{where / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "NO_COLOR": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{command}"], cwd=where, env={**kept, **own}, text=True, check=False, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    shown = "\n".join(line.rstrip() for line in done.stdout.replace(str(where), ".").rstrip("\n").split("\n"))
    # `head` closes the pipe under who writes to it.
    return shown if done.returncode in (0, 141) or "| head" in command else f"{shown}\n[exit code {done.returncode}]"


def same(shown: str, found: str) -> bool:
    """Whether two outputs say the same: words exactly, numbers to a thousandth, keys and times at all."""
    one, other = (_still(text) for text in (shown, found))
    numbers = [[float(number.replace("−", "-")) for number in NUMBER.findall(text)] for text in (one, other)]
    if NUMBER.sub("N", one) != NUMBER.sub("N", other) or len(numbers[0]) != len(numbers[1]):
        return False
    return all(math.isclose(first, second, rel_tol=1e-3, abs_tol=1e-3) for first, second in zip(*numbers, strict=True))


def _still(text: str) -> str:
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text


def renewed(text: str, blocks: list[list[Step]]) -> str:
    """The page with these blocks in place of its own."""
    left = iter(blocks)

    def block(_: re.Match[str]) -> str:
        lines = [f"$ {step.command}\n{step.shown}\n" if step.shown else f"$ {step.command}\n" for step in next(left)]
        return "```console\n" + "".join(lines) + "```"

    return BLOCK.sub(block, text)
