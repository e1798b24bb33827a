"""Plan, launch, collect, render, write results: the whole story of `replicate table1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replication.launch.interface import Launcher, Watch
from replication.plan.steps import Plan, plan, refuse_unpinned
from replication.recipes.jobs_needed import Recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report
from replication.report.collecting import collect_any
from replication.report.provenance.public_text import public_report
from replication.report.provenance.stamps import KeptReport, keep_report, kept_report, stamp
from replication.report.render.tables import render
from replication.report.results.files import write_results
from replication.report.results.reading import read_results, rebuilt
from replication.report.verdicts.report import with_verdicts
from sarm.store.artifacts import ArtifactStore

AUTHORS = "authors"
# Of experiments that print no table of accuracies: the kinds of work of which any one is a result.
LISTED = {"table4": ("train_sae", "train_reward"), "features": ("explain_latents",), "figure3": ("steer_rewards",)}

__all__ = ["Outcome", "folder", "from_authors", "from_scores", "measured", "replicate", "report"]


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the exit code, and for each experiment its report, its tables and its results."""

    code: int
    started: int
    reports: tuple[Report, ...] = ()
    files: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()


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
    """Do what is not done yet, then render every experiment into `rendered/<profile>/`, with its results beside the tables.

    After a failure the tables are rendered with what there is, and the code is the launcher's. Raises UsageProblems for
    settings that do not fit and EnvironmentProblem for revisions that are not pinned. A report of which nothing has changed since
    it was rendered is read, not made and drawn again.
    """
    refuse_unpinned(settings)
    work = planned or plan(settings, store)
    code = launcher.launch(work.todo, store, watch) if work.todo else 0
    made = [_rendered(one, store, folder(rendered, one.setting), command=command) for one in work.recipes]
    return Outcome(
        code=code,
        started=len(work.todo),
        reports=tuple(one.report for one in made),
        files=tuple(path for one in made for path in one.files),
        results=tuple(path for one in made for path in one.results),
    )


def _rendered(one: Recipe, store: ArtifactStore, where: Path, *, command: str) -> KeptReport:
    """The report of a recipe with its files: as an unchanged earlier run left it, or made now."""
    name, found = one.setting.experiment.name, stamp(one, store, command=command)
    earlier = kept_report(where, name, found)
    if earlier is not None:
        return earlier
    made = report(one, store, command=command, figures=where)
    _draw(made, where, one, store)
    files, results = render(made, where), write_results(made, one, store, where, command=command)
    keep_report(where, name, found, files=files, results=results)
    return KeptReport(made, files, results)


def _draw(made: Report, where: Path, recipe: Recipe | None = None, store: ArtifactStore | None = None) -> None:
    """The pictures of a report, beside its tables."""
    # Loaded here: matplotlib takes a second, and a report that is kept as it was needs none of it.
    from replication.report.render.pictures.drawn import draw  # noqa: PLC0415

    draw(made, where, recipe=recipe, store=store)


def report(one: Recipe, store: ArtifactStore, *, command: str, figures: Path | None = None) -> Report:
    """The report of a recipe with its verdicts, as far as the store has it; with a folder its figures are drawn into it."""
    found = collect_any(one, store, command=command, figures=figures)
    return public_report(with_verdicts(found, reference=one.setting.experiment.published))


def from_scores(path: Path, rendered: Path) -> tuple[Report, tuple[Path, ...]]:
    """The tables of a results.json, computed anew from the rewards beside it alone; the report and the files written.

    Raises ResultsError and DataError for files that cannot be trusted.
    """
    stored = read_results(path)
    found = with_verdicts(rebuilt(stored, path.parent), reference=stored.published)
    where = rendered / folder_name(stored.profile, stored.protocol, released=found.regime == "evaluation")
    _draw(found, where)
    return found, render(found, where)


def from_authors(path: Path, rendered: Path) -> tuple[Report, tuple[Path, ...]]:
    """Figure 3 from the authors' own rewards alone, as tables and as PNG, SVG and PDF; no job, no store, no model of ours.

    Raises EnvironmentProblem and IntegrityProblem for a file that is not there or not what it should be.
    """
    # Loaded here: no other way through this file needs matplotlib.
    from replication.report.steering.figure import draw_figure3  # noqa: PLC0415
    from replication.report.steering.tables import figure3_report  # noqa: PLC0415

    found = figure3_report([], profile=AUTHORS, protocol=AUTHORS, why_not_comparable="", authors=path)
    where = rendered / AUTHORS
    return found.report, (*render(found.report, where), *draw_figure3(found, where, authors=path))


def folder(rendered: Path, setting: Setting) -> Path:
    """Where the tables of a setting lie: one folder for each profile, others for each protocol but the paper's and for released models."""
    return rendered / folder_name(setting.profile.name, setting.protocol.name, released=setting.source == "released")


def folder_name(profile: str, protocol: str, *, released: bool = False) -> str:
    """The name of that folder; released checkpoints have tables of their own."""
    name = profile if protocol == "paper" else f"{profile}-{protocol}"
    return f"{name}-released" if released else name


def measured(found: Report) -> bool:
    """Whether anything but a control was measured by us: a cell of a table or, where an experiment's product is no table, that product."""
    cells = (cell for table in found.tables for row in table.rows if row.origin != "control" for cell in row.cells)
    return any(cell.ours is not None for cell in cells) or any(one.kind in LISTED.get(found.experiment, ()) for one in found.provenance)
