"""A tiny run of which one process, or all, is killed at a named moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from tiny_run import LONGEST_SECONDS, Place

MOMENTS = ("claiming", "training", "renaming a checkpoint", "committing", "rendering")
TARGETS = ("parent", "worker", "group", "rank")
HOOK = Path(__file__).resolve().parent / "moments"
# How often a moment comes in the process that comes to it first, about: the campaign picks one of these occurrences.
OCCURRENCES = {"claiming": 3, "training": 4, "renaming a checkpoint": 2, "committing": 4, "rendering": 6}
POLL_SECONDS = 0.02
FAREWELL_SECONDS = 90.0


class Outcome(NamedTuple):
    """Whether the moment came, the exit code of the command, what was still there at the end, and words about it."""

    reached: bool
    code: int
    hangs: str = ""
    told: str = ""


@dataclass(frozen=True)
class Kill:
    """Who is killed when. `rank` is a process of a torchrun group, drawn among them; `group` is the command with all its children."""

    target: str
    moment: str

    @property
    def cell(self) -> tuple[str, str]:
        """Its place in the table."""
        return self.target, self.moment

    def __str__(self) -> str:
        return f"{self.target} while {self.moment}"


def killed(place: Place, kill: Kill, chance: random.Random, *, early: bool = False) -> Outcome:
    """Run until the moment (`early`: its first occurrence), kill, wait until all is over."""
    order = place.folder / "order"
    shutil.rmtree(order, ignore_errors=True)
    (order / "processes").mkdir(parents=True)
    nth = 1 + chance.randrange(1 if early else OCCURRENCES[kill.moment])
    asked = {"moment": kill.moment, "nth": nth, "before": chance.random() < 0.5}
    (order / "order.json").write_text(json.dumps({**asked, "rendered": str(place.rendered)}), encoding="utf-8")
    if kill.moment == "rendering":
        shutil.rmtree(place.rendered, ignore_errors=True)
    child = place.start({"SARM_CAMPAIGN_ORDER": str(order), "PYTHONPATH": str(HOOK)})
    try:
        reached = _wait_for(order / "reached", child)
        known = _descendants(child.pid)
        if reached:
            for pid in _victims(kill, child.pid, int((order / "reached").read_text()), order, chance):
                _kill(pid)
        (order / "let-go").touch()
        try:
            code = child.wait(timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            code = -999
        hangs = _still_there(known)
    except KeyboardInterrupt:
        # Leave nothing behind of a campaign that was interrupted.
        for pid in (child.pid, *_descendants(child.pid)):
            _kill(pid)
        raise
    return Outcome(reached, code, hangs, f"occurrence {nth}, {'before' if asked['before'] else 'after'} the call")


def _wait_for(file: Path, child: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + LONGEST_SECONDS
    while not file.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return file.exists()


def _victims(kill: Kill, parent: int, holder: int, order: Path, chance: random.Random) -> list[int]:
    if kill.target == "parent":
        return [parent]
    if kill.target == "group":
        # All at once, as a scheduler or the kernel does; none may see another die first, so the parent comes first.
        return [parent, *_descendants(parent)]
    if kill.target == "worker":
        return [holder]
    alive = [int(file.name.split("-")[2]) for file in sorted((order / "processes").glob("rank-*"))]
    return [chance.choice([pid for pid in alive if psutil.pid_exists(pid)] or [holder])]


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _still_there(pids: list[int]) -> str:
    """Wait until these processes have ended; what of them has not in a minute and a half is killed, and named."""
    end = time.monotonic() + FAREWELL_SECONDS
    while (alive := [pid for pid in pids if _lives(pid)]) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    named = [" ".join(psutil.Process(pid).cmdline()[:4]) for pid in alive if psutil.pid_exists(pid)]
    for pid in alive:
        _kill(pid)
    return "; ".join(named)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
