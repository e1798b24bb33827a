"""The head-weight spectrum: all weights of a head in order, with the explained latents marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError

from replication.drawing import BLUE, INK, LINE, MUTED, VERMILLION, plain
from replication.recipes.jobs_needed import Recipe, Training
from replication.report.latents.features import explanations
from replication.report.render.pictures.drawable import Picture, alternative
from sarm.job import UsageProblem
from sarm.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "head-weights"
HEAD = "score.weight"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# Points of each half of the line, of which the first stand for one latent each.
POINTS, ENDS = 200, 60
MOST_SEEDS = 4
GROUPS: Mapping[str, tuple[str, str]] = {"positive": (BLUE, "^"), "negative": (VERMILLION, "v"), "listed": (INK, "s")}


class Spectrum(NamedTuple):
    """Weights of one seed's head, the largest first (`[n_latents]`), and for each explained latent its group, rank and weight."""

    label: str
    weights: np.ndarray
    explained: tuple[tuple[str, int, float, str], ...]


def head_weights(folder: Path) -> np.ndarray:
    """The reward head of a model in Hugging Face layout, `[n_latents]`, read alone: nothing else of the file is touched.

    Raises UsageProblem where the folder has no such tensor or it cannot be read.
    """
    from safetensors import safe_open  # noqa: PLC0415 - only the features need it

    try:
        file = SINGLE
        if (folder / INDEX).is_file():
            file = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"][HEAD]
        with safe_open(folder / file, framework="numpy") as tensors:
            kind = tensors.get_slice(HEAD).get_dtype()
            return _bfloat16(folder / file) if kind == "BF16" else np.asarray(tensors.get_tensor(HEAD), dtype=np.float64)[0]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise UsageProblem(f"{folder.name}: its reward head {HEAD} cannot be read ({error}); run: replicate verify") from error


def _bfloat16(file: Path) -> np.ndarray:
    """The head in bfloat16, which numpy has no type for: the upper half of a float32."""
    with file.open("rb") as content:
        size = int.from_bytes(content.read(8), "little")
        begin, end = json.loads(content.read(size))[HEAD]["data_offsets"]
        content.seek(8 + size + begin)
        halves = np.frombuffer(content.read(end - begin), dtype="<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def spectra(recipe: Recipe, store: ArtifactStore) -> list[Spectrum]:
    """One for each explained training whose model the store has."""
    return [one for training in recipe.trainings if (one := _spectrum(training, store)) is not None]


def _spectrum(training: Training, store: ArtifactStore) -> Spectrum | None:
    rows = explanations(training, store)
    if not rows or training.model is None or not store.has(training.model):
        return None
    weights = head_weights(store.path(training.model))
    order = np.argsort(-weights, kind="stable")
    rank = {int(latent): place for place, latent in enumerate(order)}
    marked = [row for row in rows if row["group"] in GROUPS and row["latent"] in rank]
    explained = tuple((str(row["group"]), rank[row["latent"]], float(row["weight"]), _told(row)) for row in marked)
    return Spectrum(f"{training.row.label or training.row.name}, seed {training.seed}", weights[order], explained)


def _told(row: Mapping[str, Any]) -> str:
    return f"latent {row['latent']} ({row['explanation'] or row['status']})"


def spectrum(recipe: Recipe, store: ArtifactStore) -> Picture | None:
    """The picture of the first seeds; None where nothing was explained."""
    found = spectra(recipe, store)
    if not found:
        return None
    title = plain(f"Head weights and explained latents, profile {recipe.setting.profile.name}, protocol {recipe.setting.protocol.name}")
    says = [f"{title}. Weights in order, the largest first."]
    for one in found:
        positive = int((one.weights > 0).sum())
        span = f"from {one.weights[0]:+.3g} to {one.weights[-1]:+.3g}"
        says.append(f"{one.label}: {len(one.weights):,} latents {span}, {positive:,} above 0; {len(one.explained)} explained.")
        for group, rank, weight, told in one.explained:
            says.append(f"Rank {rank + 1:,}, {group}, weight {weight:+.3g}: {plain(told, longest=90)}.")
    return Picture(NAME, title, alternative(says), _figure(found[:MOST_SEEDS], title))


def shown_places(size: int) -> list[int]:
    """The ranks from one end that its half of the line goes through: every one at first, then ever wider apart."""
    half = (size + 1) // 2
    apart = np.geomspace(1, half, POINTS).astype(int) - 1 if half > POINTS else np.arange(half)
    return sorted({*range(min(half, ENDS)), *apart.tolist()})


def _figure(found: Sequence[Spectrum], title: str) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    figure = Figure(figsize=(9.6, 1.0 + 2.7 * len(found)), layout="constrained")
    figure.suptitle(title, x=0.005, ha="left", fontsize=10.5)
    for (left, right), one in zip(figure.subplots(len(found), 2, squeeze=False, sharey="row"), found, strict=True):
        _panel(left, one, from_the_end=False)
        _panel(right, one, from_the_end=True)
        left.set_ylabel("head weight")
    for group, (colour, marker) in GROUPS.items():
        if any(group == name for one in found for name, *_ in one.explained):
            figure.axes[0].plot([], [], color=colour, marker=marker, linestyle="", label=f"explained, {group}")
    figure.legend(loc="outside lower center", ncols=4, labelcolor=INK)
    return figure


def _panel(axes: Axes, one: Spectrum, *, from_the_end: bool) -> None:
    """Half of the weights by their rank from one end, which both have on a logarithmic axis: the large ones are few."""
    size = len(one.weights)
    places = shown_places(size)
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    values = one.weights[::-1] if from_the_end else one.weights
    axes.plot([place + 1 for place in places], values[places], color=MUTED, linewidth=1.4, zorder=1)
    for group, (colour, marker) in GROUPS.items():
        ranks = [(size - rank if from_the_end else rank + 1, weight) for name, rank, weight, _ in one.explained if name == group]
        here = [(rank, weight) for rank, weight in ranks if rank <= (size + 1) // 2]
        axes.plot([x for x, _ in here], [y for _, y in here], color=colour, marker=marker, markersize=5, linestyle="", zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(lambda _value, _place: "")
    if from_the_end:
        axes.invert_xaxis()
        axes.set_xlabel("rank from the most negative")
    else:
        axes.set_title(plain(one.label, longest=50))
        axes.set_xlabel("rank from the most positive")
