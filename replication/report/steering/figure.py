"""Figure 3 as PNG, SVG and PDF: reward distributions before and after on the concept and elsewhere, and the dose curve.

The same data give the same bytes: no dates, no version, a fixed salt for the identifiers in the SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replication.drawing import FORMATS, FigureFormat, save, styled
from replication.report.steering.authors_figure import AuthorsFigure, read_authors
from replication.report.steering.controls import Dose, dose_curve
from replication.report.steering.experiment import STRATUM_NAMES, Steering
from replication.report.steering.paired_shifts import Floats
from replication.report.steering.tables import NAME, Figure3, edit_text

BEFORE, AFTER = "#5b6b7f", "#c8553d"
STRATUM_COLOURS = {"T": "#c8553d", "C1": "#e0a458", "C2": "#2f6690", "C3": "#81a4cd"}
OTHERS = ("#2f6690", "#81a4cd", "#3a7d44", "#8e7dbe", "#7a7a7a", "#b08968")
DOSE_AXIS = {False: "factor on the head weight", True: "multiple of the file's edit"}
BINS = 36
# Panels of distributions are cut there, so that a few far rewards do not flatten all others.
SHARE_SHOWN = 0.998


def draw_figure3(
    found: Figure3, folder: Path, *, authors: Path | None = None, formats: Sequence[FigureFormat] = FORMATS
) -> tuple[Path, ...]:
    """All figures of a report: `figure3` of its first seed, `figure3-seed<N>` of the others, `figure3-authors`; the paths.

    Figures of seeds and authors that an earlier report had and this one has not are taken away.
    """
    paths: list[Path] = []
    for place, (seed, data) in enumerate(found.data.items()):
        name = f"{NAME}-seed{seed}" if place else NAME
        report = found.report
        paths += draw(data, folder, profile=report.profile, seed=seed, comparable=report.comparable, name=name, formats=formats)
    if authors:
        paths += draw_authors(read_authors(authors), folder, formats=formats)
    for name in (NAME, f"{NAME}-seed[0-9]*", f"{NAME}-authors"):
        for earlier in (path for suffix in formats for path in folder.glob(f"{name}.{suffix}") if path not in paths):
            earlier.unlink()
    return tuple(paths)


def draw(
    data: Steering,
    folder: Path,
    *,
    profile: str,
    seed: int,
    comparable: bool,
    name: str = NAME,
    formats: Sequence[FigureFormat] = FORMATS,
) -> tuple[Path, ...]:
    """Writes `<name>.<format>` into the folder, which is made; the paths, in the order asked for.

    Profile, seed and comparability stand in the title, since a miniature's figure must never be taken for the paper's.
    """
    scale = "" if comparable else " (a miniature)" if profile == "mini" else " (not comparable with the paper)"
    with styled():
        return save(_figure(data, heading=f"Figure 3, profile {profile}{scale}, seed {seed}"), folder, name, formats)


def draw_authors(
    figure: AuthorsFigure, folder: Path, *, name: str = "figure3-authors", formats: Sequence[FigureFormat] = FORMATS
) -> tuple[Path, ...]:
    """The paper's Figure 3 from the authors' own rewards: safety on the left, the complement on the right."""
    with styled():
        drawn = Figure(figsize=(9.5, 3.6), layout="constrained")
        title = f"Figure 3 from the authors' rewards: latent {figure.latent}, multiplier not recorded"
        drawn.suptitle(title, x=0.01, ha="left", fontsize=11)
        edges = _edges([part for one in figure.sets for part in (one.before, one.after)])
        for axes, one, letter in zip(drawn.subplots(1, 2), figure.sets, "ab", strict=True):
            active = int(one.active.sum())
            title = f"({letter}) {one.label}\n{len(one.before)} items, latent active in {active}"
            _distributions(axes, one.before, one.after, edges, title=title)
        return save(drawn, folder, name, formats)


def _figure(data: Steering, *, heading: str) -> Figure:
    """Above: the concept's chosen replies, the complement, the dose curve. Below: the strata, and accuracy by dose."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    facts = data.facts
    chosen = (
        f"{heading}: head weight of latent {data.latent} times {data.multiplier:g}\n"
        f"chosen by {facts['rule']} on {facts['selection']} {facts['subset']!r}, tested on {facts['target']}; "
        f"s = {data.s[data.latent]:.3f}, t = {data.t[data.latent]:.3f}, w = {data.head[data.latent]:.3g}"
    )
    given = f"{heading}: steered by a file, {edit_text(data)}\nchosen by its author, not by the paper's rule; tested on {facts['target']}"
    figure.suptitle(given if data.from_file else chosen, x=0.01, ha="left", fontsize=11)
    upper, lower = figure.add_gridspec(2, 12), data.strata
    after = data.rewards + data.change
    complement = lower["C2"] | lower["C3"]
    panels = {
        (0, 0, 4): ("(a) " + STRATUM_NAMES["T"] + " (T)", lower["T"]),
        (0, 4, 8): ("(b) complement, all replies (C2 and C3)", complement),
        (1, 0, 3): (f"{STRATUM_NAMES['C1']} (C1)", lower["C1"]),
        (1, 3, 6): (f"{STRATUM_NAMES['C2']} (C2)", lower["C2"]),
        (1, 6, 9): (f"{STRATUM_NAMES['C3']} (C3)", lower["C3"]),
    }
    edges = _edges([data.rewards, after])
    for (row, first, last), (title, mask) in panels.items():
        axes = figure.add_subplot(upper[row, first:last])
        fires = f"{int(mask.sum())} replies, latent active in {int(data.touched[mask].sum())}"
        _distributions(axes, data.rewards[mask], after[mask], edges, title=f"{title}\n{fires}")
    curve = dose_curve(data)
    _shift_curve(figure.add_subplot(upper[0, 8:12]), data, curve)
    _accuracy_curve(figure.add_subplot(upper[1, 9:12]), data, curve)
    return figure


def _edges(parts: Sequence[Floats]) -> Floats:
    """Bins common to all panels; the outermost ones take what lies beyond, and the axis says how many that are."""
    everything = np.concatenate(list(parts))
    low, high = np.quantile(everything, [(1 - SHARE_SHOWN) / 2, (1 + SHARE_SHOWN) / 2])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _distributions(axes: Axes, before: Floats, after: Floats, edges: Floats, *, title: str) -> None:
    """Step histograms as shares, `before` thin on top so that it shows where nothing moved; means as dashed lines."""
    shares = [np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)[0] / len(values) for values in (after, before)]
    peak = max(float(share.max()) for share in shares)
    for values, share, colour, label, width in zip((after, before), shares, (AFTER, BEFORE), ("after", "before"), (2.2, 1.0), strict=True):
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.2)
        axes.stairs(share, edges, color=colour, linewidth=width, label=f"{label}, mean {values.mean():.3g}")
        axes.vlines(float(values.mean()), 0, 1.04 * peak, color=colour, linewidth=width, linestyle=(0, (4, 2)))
    axes.set_title(title)
    beyond = sum(int(((values < edges[0]) | (values > edges[-1])).sum()) for values in (before, after))
    axes.set_xlabel("reward" + (f" ({beyond} beyond)" if beyond else ""))
    axes.set_ylabel("share of replies")
    axes.locator_params(axis="x", nbins=6)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.3 * peak)
    axes.legend(loc="upper left", reverse=True)


def _shift_curve(axes: Axes, data: Steering, curve: Sequence[Dose]) -> None:
    doses = [dose.multiplier for dose in curve]
    for name, colour in STRATUM_COLOURS.items():
        shifts = [dose.shifts[name] for dose in curve]
        axes.plot(doses, shifts, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=f"{name}: {STRATUM_NAMES[name]}")
    axes.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    axes.axvline(data.dose, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    what = "edit" if data.from_file else "factor"
    axes.set_title(f"(c) dose curve of the mean shift\ndotted: the {what} of the other panels, {data.dose:g}")
    axes.set_xlabel(DOSE_AXIS[data.from_file])
    axes.set_ylabel("mean shift / SD of rewards before")
    axes.legend(loc="upper left" if curve[-1].shifts["T"] > 0 else "lower left")


def _accuracy_curve(axes: Axes, data: Steering, curve: Sequence[Dose]) -> None:
    doses = [dose.multiplier for dose in curve]
    colours = iter(OTHERS)
    for name in curve[0].accuracies:
        if name == "Overall":
            continue
        concept = data.in_concept(name)
        colour, width = (STRATUM_COLOURS["T"], 2.0) if concept else (next(colours), 1.1)
        scores = [dose.accuracies[name] for dose in curve]
        axes.plot(doses, scores, marker="o", markersize=2.5, label=name, color=colour, linewidth=width, zorder=2 + concept)
    axes.axvline(data.dose, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_title("(d) accuracy by dose\nof each subset")
    axes.set_xlabel(DOSE_AXIS[data.from_file])
    axes.set_ylabel("percent")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.legend(loc="upper left", ncols=2)
