"""What a user sees while jobs run, and plans as tables: rich on a terminal, plain 100-column lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from replication.cost import PEAK_FLOPS, UTILISATION, Cost
from replication.launch.launcher import Watch
from replication.planning import Plan, Step
from replication.report.tables import console_for

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


def plan_table(plan: Plan, console: Console) -> None:
    """Each job with why it runs or is reused, and what is expected of it; then the sums."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("action", "job", "key", "estimate"):
        table.add_column(column, no_wrap=column in ("action", "key"), overflow="fold")
    for step in plan.steps:
        table.add_row(step.action, f"{step.job.label}\n  {step.why}", step.job.short_key[:8], _estimate(step.cost, step.job.resources.gpus))
    console.print(table)
    for line in summary(plan):
        console.print(line)


def summary(plan: Plan) -> list[str]:
    """How much runs and is reused, and the estimate."""
    todo, cost = plan.todo, plan.cost
    lines = [f"{len(todo)} jobs to run, {len(plan.steps) - len(todo)} reused"]
    if todo:
        gpus = any(job.resources.gpus for job in todo)
        devices = ", ".join(f"{cost.gpu_hours(device):.1f} h of one {device}" for device in PEAK_FLOPS)
        where = f"{devices} (at {UTILISATION:.0%} of the peak)" if gpus else f"about {duration(cost.cpu_seconds)} on this machine"
        lines.append(
            f"estimate: {cost.flops:.2g} FLOP, {where}; largest process {cost.memory_gb:.2g} GB; {cost.disk_gb:.2g} GB of artifacts"
            + (f"; {cost.download_gb:.0f} GB of downloads" if cost.download_gb else "")
        )
    return lines


def _estimate(cost: Cost, gpus: int) -> str:
    if gpus:
        return f"{cost.gpu_hours('A100'):.1f} A100-h / {cost.gpu_hours('RTX 3090'):.1f} 3090-h, {cost.memory_gb:.0f} GB"
    return duration(cost.cpu_seconds)


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader wants."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def plan_values(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A plan as plain values for JSON."""
    return [
        {
            "kind": step.job.kind,
            "key": step.job.key,
            "label": step.job.label,
            "action": step.action,
            "why": step.why,
            "inputs": {name: needed.key for name, needed in step.job.inputs.items()},
            "config": step.job.config.model_dump(mode="json"),
            "resources": step.job.resources.model_dump(mode="json"),
            "cost": {**step.cost.model_dump(), "gpu_hours": {device: step.cost.gpu_hours(device) for device in PEAK_FLOPS}},
        }
        for step in steps
    ]
