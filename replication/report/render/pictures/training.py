"""Training curves of every reward model and SAE of an experiment, from the logs that lie in their artifacts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from replication.drawing import CYCLE, DASHES, INK, LINE, plain
from replication.recipes.jobs_needed import Recipe
from replication.report.render.pictures.drawable import Picture, alternative
from sarm.job import Job, topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "training"
LOG = "metrics.jsonl"
# Panels: kind of job, field of its log, what it is called.
PANELS = (
    ("train_reward", "preference_loss", "reward models: preference loss"),
    ("train_reward", "accuracy", "reward models: accuracy of the batch"),
    ("train_sae", "loss", "SAEs: loss"),
)
# Of a curve that is drawn; each is the mean of the steps around it.
POINTS = 100
LABEL = 60


class Trained(NamedTuple):
    """One field of one training's log, thinned: steps and values."""

    label: str
    panel: int
    steps: tuple[float, ...]
    values: tuple[float, ...]


def trained(recipe: Recipe, store: ArtifactStore) -> list[Trained]:
    """The curves of a recipe, as far as the store has them; a line of a log that is no number is left out."""
    found = []
    for job in topological_order(recipe.jobs):
        panels = [place for place, (kind, _, _) in enumerate(PANELS) if job.kind == kind]
        if not panels or not store.has(job) or not (store.path(job) / LOG).is_file():
            continue
        found += [one for place in panels if (one := _curve(job, place, store.path(job) / LOG)) is not None]
    return found


def _curve(job: Job, panel: int, log: Path) -> Trained | None:
    points = list(_points(read_log(log).rows, PANELS[panel][1]))
    if not points:
        return None
    size = math.ceil(len(points) / POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    means = [tuple(math.fsum(side) / len(part) for side in zip(*part, strict=True)) for part in parts]
    return Trained(job.label, panel, tuple(step for step, _ in means), tuple(value for _, value in means))


def _points(rows: Iterable[object], field: str) -> Iterable[tuple[float, float]]:
    for row in rows:
        pair = (row.get("step"), row.get(field)) if isinstance(row, dict) else (None, None)
        if all(isinstance(one, int | float) and math.isfinite(one) for one in pair):
            yield float(pair[0]), float(pair[1])  # type: ignore[arg-type]


def training(recipe: Recipe, store: ArtifactStore) -> Picture | None:
    """The picture; None where nothing was trained."""
    found = trained(recipe, store)
    if not found:
        return None
    setting = recipe.setting
    title = plain(f"Training of {setting.experiment.title}, profile {setting.profile.name}, protocol {setting.protocol.name}")
    says = [f"{title}. Loss and accuracy by step, each point a mean of the steps around it."]
    for one in found:
        course = f"from {one.values[0]:.3g} to {one.values[-1]:.3g} at step {one.steps[-1]:.0f}"
        says.append(f"{PANELS[one.panel][2]}, {one.label}: {course}.")
    return Picture(NAME, title, alternative(says), _figure(found, title))


def _figure(found: Sequence[Trained], title: str) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    panels = [place for place in range(len(PANELS)) if any(one.panel == place for one in found)]
    kinds = {kind: list(dict.fromkeys(one.label for one in found if PANELS[one.panel][0] == kind)) for kind, _, _ in PANELS}
    longest = max(map(len, kinds.values()))
    figure = Figure(figsize=(1.0 + 4.0 * len(panels), 3.6 + 0.17 * longest), layout="constrained")
    figure.suptitle(title, x=0.005, ha="left", fontsize=10.5)
    for axes, place in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        labels = kinds[PANELS[place][0]]
        for one in (one for one in found if one.panel == place):
            number = labels.index(one.label)
            colour, dash = CYCLE[number % len(CYCLE)], DASHES[number // len(CYCLE) % len(DASHES)]
            marker, every = "osD^vP"[number % len(CYCLE)], max(1, len(one.steps) // 6)
            axes.plot(
                one.steps, one.values, color=colour, linestyle=dash, linewidth=1.2, marker=marker, markersize=3.5,
                markevery=(number % every, every), label=plain(one.label, longest=LABEL),
            )  # fmt: skip
        _finish(axes, place, found)
    return figure


def _finish(axes: Axes, place: int, found: Sequence[Trained]) -> None:
    axes.set_title(PANELS[place][2])
    axes.set_xlabel("step")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    values = [value for one in found if one.panel == place for value in one.values]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log", subs=(2, 5))
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}")
    # One legend a kind of job: the second panel of reward models has the lines of the first.
    if PANELS[place][1] != "accuracy":
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7, labelcolor=INK)
