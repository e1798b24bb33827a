"""What a user sees while jobs run: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from replication.launch.interface import Watch
from replication.report.render.tables import console_for

PLAIN_PROGRESS_SECONDS = 15.0


@contextmanager
def watching(total: int) -> Iterator[Watch]:
    """A watch on the jobs of a plan: bars on a terminal, else one line for each start, end and quarter of a minute. To stderr."""
    console = console_for(sys.stderr)
    if not console.is_terminal:
        yield _PlainWatch(total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as progress:
        yield _BarWatch(progress, total)


class _PlainWatch:
    """Events as lines."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._finished = 0
        self._told = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        name = event["event"]
        label = event.get("label") or event["kind"]
        if name == "progress":
            now = time.monotonic()
            if now - self._told >= PLAIN_PROGRESS_SECONDS:
                self._told = now
                self._say(f"  {label}: {event['done']}/{event['total']} {event['unit']} {event['note']}".rstrip())
            return
        self._told = time.monotonic()
        if name in ("done", "reused"):
            self._finished += 1
            seconds = f" in {event['seconds']:.1f} s" if "seconds" in event else ""
            self._say(f"[{self._finished}/{self._total}] {label}: {name}{seconds}")
        elif name in ("start", "waiting", "skipped"):
            self._say(f"  {label}: {event.get('note') or event.get('reason') or name}")

    @staticmethod
    def _say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _BarWatch:
    """Events as a bar for all jobs and one for the job at work."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._all = progress.add_task("jobs", total=total)
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        key, label = event["key"], event.get("label") or event["kind"]
        if event["event"] == "start":
            self._tasks[key] = self._progress.add_task(label, total=None)
        elif event["event"] == "progress" and key in self._tasks:
            note = f"{label} {event['note']}".strip()
            self._progress.update(self._tasks[key], completed=event["done"], total=event["total"], description=note)
        elif event["event"] in ("done", "reused"):
            self._progress.advance(self._all)
            if key in self._tasks:
                self._progress.update(self._tasks.pop(key), visible=False)
            if "seconds" in event:
                self._progress.console.print(f"{label}: {event['seconds']:.1f} s")
        elif event["event"] in ("waiting", "skipped"):
            self._progress.console.print(f"{label}: {event.get('note') or event.get('reason')}")
