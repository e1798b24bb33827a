"""Plan, launch, collect, render: the whole story of `replicate table1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replication.launch.launcher import Launcher, Watch
from replication.planning import Plan, plan, refuse_unpinned
from replication.recipes import Recipe, Setting
from replication.report.cells import Report
from replication.report.results import collect
from replication.report.tables import render, terminal
from replication.report.verdicts import with_verdicts
from sarm.artifacts import ArtifactStore

__all__ = ["Outcome", "folder", "measured", "replicate", "report", "terminal"]


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the exit code, and for each experiment its report and the files written."""

    code: int
    started: int
    reports: tuple[Report, ...] = ()
    files: tuple[Path, ...] = ()


def replicate(
    settings: Sequence[Setting],
    store: ArtifactStore,
    launcher: Launcher,
    *,
    watch: Watch,
    rendered: Path,
    command: str,
    planned: Plan | None = None,
) -> Outcome:
    """Do what is not done yet, then render every experiment into `rendered/<profile>/`.

    After a failure the tables are rendered with what there is, and the code is the launcher's. Raises UsageProblems for
    settings that do not fit and EnvironmentProblem for revisions that are not pinned.
    """
    refuse_unpinned(settings)
    work = planned or plan(settings, store)
    code = launcher.launch(work.todo, store, watch) if work.todo else 0
    reports = tuple(report(one, store, command=command) for one in work.recipes)
    files = [path for one, setting in zip(reports, settings, strict=True) for path in render(one, folder(rendered, setting))]
    return Outcome(code=code, started=len(work.todo), reports=reports, files=tuple(files))


def report(one: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """The report of a recipe with its verdicts, as far as the store has it."""
    return with_verdicts(collect(one, store, command=command))


def folder(rendered: Path, setting: Setting) -> Path:
    """Where the tables of a setting lie: one folder for each profile, and another for each protocol but the paper's."""
    name = setting.profile.name
    return rendered / (name if setting.protocol.name == "paper" else f"{name}-{setting.protocol.name}")


def measured(found: Report) -> bool:
    """Whether anything of our own was measured."""
    return any(cell.ours is not None for table in found.tables for row in table.rows if row.origin == "paper-ours" for cell in row.cells)
