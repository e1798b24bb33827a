"""What a user sees while jobs run: bars on a terminal, plain lines otherwise. Each tells step, rate, the job's note and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from replication.cli.running.time_left import Expected, Pace, Remaining
from replication.launch.interface import Watch
from replication.plan.view import duration
from replication.terminal.console import console_for
from replication.terminal.fitting import shortened
from sarm.job import printable

PLAIN_PROGRESS_SECONDS = 15.0
LABEL_SHARE = 0.3
BAR = 8
ALL = "all jobs"


@contextmanager
def watching(total: int, expected: Mapping[str, Expected] | None = None, *, stream: TextIO | None = None) -> Iterator[Watch]:
    """A watch on the jobs of a plan: bars on a terminal, else one line for each start, end and quarter of a minute. To stderr.

    `expected` gives what the plan expects of each key.
    """
    console = console_for(stream or sys.stderr)
    remaining = Remaining(expected or {}, time.monotonic)
    if not console.is_terminal or console.no_color or console.color_system is None:
        yield PlainWatch(total, remaining, stream=stream)
        return
    with Progress(*_columns(), console=console, transient=False) as progress:
        yield _BarWatch(progress, console, total, remaining)


def _columns() -> tuple[TextColumn | BarColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR),
        TextColumn("{task.fields[facts]}", markup=False),
    )


def facts_of(event: Mapping[str, Any], told: tuple[float | None, float | None], *, width: int | None = None) -> str:
    """`120/600 steps, 14/s, loss 0.5312, 34 s left`; in less room without the rate, then without the unit, then without the note.

    `told` is what a `Pace` says of the event: units a second and seconds left.
    """
    rate, left = told
    counted, unit, note = f"{event['done']:,}/{event['total']:,}", str(event["unit"]), printable(str(event["note"]))
    fast = "" if rate is None else f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.2g}/s"
    remains = f"{duration(left)} left" if left is not None and event["done"] < event["total"] else ""
    forms = ((f"{counted} {unit}", fast, note, remains), (f"{counted} {unit}", note, remains), (counted, note, remains), (counted, remains))
    texts = [", ".join(part for part in form if part) for form in forms]
    return texts[0] if width is None else next((text for text in texts if cell_len(text) <= width), shortened(counted, width))


def _note(remaining: Remaining, event: Mapping[str, Any]) -> None:
    """What a job's start or end says of the time left."""
    if event["event"] == "start":
        remaining.started(event["key"], event.get("together", 1))
    elif event["event"] in ("done", "reused", "skipped", "failed", "interrupted"):
        remaining.finished(event["key"], event.get("seconds"))


def _label(event: Mapping[str, Any]) -> str:
    return printable(str(event.get("label") or event["kind"])).replace("\n", " ")


class PlainWatch:
    """Events as lines."""

    def __init__(
        self, total: int, remaining: Remaining, *, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._total = total
        self._remaining = remaining
        self._stream = stream
        self._now = now
        self._finished = 0
        self._told = 0.0
        self._paces: dict[str, Pace] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of a job."""
        name, label, key = event["event"], _label(event), event["key"]
        _note(self._remaining, event)
        if name == "progress":
            told = self._paces.setdefault(key, Pace(self._now)).told(done=float(event["done"]), total=float(event["total"]))
            self._remaining.told(key, told[1])
            facts = facts_of(event, told)
            if self._now() - self._told >= PLAIN_PROGRESS_SECONDS:
                self._told = self._now()
                self._say(f"  {label}: {facts}")
            return
        self._told = self._now()
        if name in ("done", "reused"):
            self._finished += 1
            seconds = f" in {event['seconds']:.1f} s" if "seconds" in event else ""
            left = self._remaining.left()
            more = f", about {duration(left)} left" if left is not None and self._finished < self._total else ""
            self._say(f"[{self._finished}/{self._total}] {label}: {name}{seconds}{more}")
        elif name in ("start", "waiting", "skipped"):
            self._say(f"  {label}: {event.get('note') or event.get('reason') or name}")

    def _say(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


class _BarWatch:
    """Events as a bar for all jobs and one for each job at work."""

    def __init__(self, progress: Progress, console: Console, total: int, remaining: Remaining) -> None:
        self._progress = progress
        self._width = int(console.width * LABEL_SHARE)
        self._total = total
        self._finished = 0
        self._remaining = remaining
        self._tasks: dict[str, tuple[TaskID, Pace]] = {}
        self._all = progress.add_task(ALL, total=total, facts=f"0/{total}")

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event of a job."""
        name, key = event["event"], event["key"]
        _note(self._remaining, event)
        if name == "start":
            task = self._progress.add_task(shortened(_label(event), self._width), total=None, facts="")
            self._tasks[key] = (task, Pace(time.monotonic))
        elif name == "progress" and key in self._tasks:
            self._advance(event)
        elif name in ("done", "reused"):
            self._end(event)
        elif name in ("waiting", "skipped"):
            self._progress.console.print(f"{_label(event)}: {event.get('note') or event.get('reason')}", markup=False, highlight=False)
        self._tell_all()

    def _advance(self, event: Mapping[str, Any]) -> None:
        task, pace = self._tasks[event["key"]]
        told = pace.told(done=float(event["done"]), total=float(event["total"]))
        self._remaining.told(event["key"], told[1])
        room = self._progress.console.width - self._width - BAR - 2
        facts = facts_of(event, told, width=room)
        self._progress.update(task, completed=event["done"], total=event["total"], facts=facts)

    def _end(self, event: Mapping[str, Any]) -> None:
        key = event["key"]
        self._finished += 1
        if key in self._tasks:
            self._progress.update(self._tasks.pop(key)[0], visible=False)
        if "seconds" in event:
            self._progress.console.print(f"{_label(event)}: {event['seconds']:.1f} s", markup=False, highlight=False)

    def _tell_all(self) -> None:
        left = self._remaining.left()
        more = f", about {duration(left)} left" if left is not None and self._finished < self._total else ""
        self._progress.update(self._all, completed=self._finished, facts=f"{self._finished}/{self._total}{more}")
