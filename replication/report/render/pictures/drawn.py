"""All pictures of a report as files beside its tables; a picture that has nothing to show any more is taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from replication.drawing import SCREEN, styled
from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Report
from replication.report.claims.definitions import ClaimResult
from replication.report.render.pictures import curves, forest, head_weights, intervals, training
from replication.report.render.pictures.drawable import FORMATS, Picture, write
from sarm.store.artifacts import ArtifactStore

OF_REPORT = (intervals.NAME, curves.NAME)
OF_STORE = (training.NAME, head_weights.NAME)
NAMES = (*OF_REPORT, *OF_STORE)


def draw(report: Report, folder: Path, *, recipe: Recipe | None = None, store: ArtifactStore | None = None) -> tuple[Path, ...]:
    """Writes `<experiment>-<picture>.svg` and `.png` for each picture that the report gives rise to; the paths.

    Without a recipe and its store only what stands in the report itself is drawn, and pictures of artifacts are left as they are.
    """
    with styled(SCREEN):
        found: list[Picture | None] = [curves.curves(report) or intervals.intervals(report)]
        names: Sequence[str] = OF_REPORT
        if recipe is not None and store is not None:
            names = NAMES
            found += [training.training(recipe, store)]
            found += [head_weights.spectrum(recipe, store)] if recipe.setting.experiment.product == "features" else []
        drawn = [one for one in found if one is not None]
        paths = [path for one in drawn for path in write(one, folder, before=report.experiment)]
    for name in names:
        if name not in {one.name for one in drawn}:
            for suffix in FORMATS:
                (folder / f"{report.experiment}-{name}.{suffix}").unlink(missing_ok=True)
    return tuple(paths)


def draw_claims(published: Sequence[ClaimResult], own: Mapping[str, Sequence[ClaimResult]], folder: Path) -> tuple[Path, ...]:
    """Writes `claims.svg` and `claims.png`; the paths."""
    with styled(SCREEN):
        found = forest.forest(published, own)
        return write(found, folder, before="") if found is not None else ()
