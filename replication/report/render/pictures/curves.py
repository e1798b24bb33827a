"""Table 3 as three curves: Overall by layer, width and k, ours and the paper's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from replication.drawing import BLUE, DASHES, INK, VERMILLION
from replication.report.cells import Report, Table
from replication.report.render.pictures.drawable import Picture, Spot, alternative, bounds, draw_spots, heading, legend_entry, spoken
from replication.report.render.pictures.intervals import Line, accuracy_table, lines_of
from sarm.metrics.credits import OVERALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "curves"
# The published file whose rows are named after axis and value.
SWEPT = "table3"
AXES: Mapping[str, str] = {
    "layer": "layer of the paper's backbone",
    "dim": "latents, in multiples of the hidden size",
    "k": "active latents, k of the paper",
}
Curve = Sequence[tuple[int, Line]]


def swept(report: Report) -> dict[str, Curve]:
    """Axis -> its rows by their value in the paper's units; empty for other tables and where nothing was measured."""
    table = accuracy_table(report)
    if table is None or table.name != SWEPT:
        return {}
    names = _measured_names(table)
    found: dict[str, list[tuple[int, Line]]] = {}
    for name, line in zip(names, lines_of(table, report), strict=True):
        axis, _, value = name.rpartition("-")
        if axis in AXES and value.isdecimal() and OVERALL in line.ours:
            found.setdefault(axis, []).append((int(value), line))
    return {axis: sorted(found[axis], key=lambda one: one[0]) for axis in AXES if axis in found}


def _measured_names(table: Table) -> list[str]:
    return [row.name for row in table.rows if any(cell.ours for cell in row.cells)]


def curves(report: Report) -> Picture | None:
    """The picture; None where nothing of Table 3 was measured."""
    found = swept(report)
    if not found:
        return None
    title = heading(f"{report.title}: Overall", report)
    says = [f"{title}. Percent with 95 % intervals."]
    for axis, curve in found.items():
        parts = [
            f"{value}: {spoken(line.ours[OVERALL])}" + (f", paper {spoken(line.paper[OVERALL])}" if OVERALL in line.paper else "")
            for value, line in curve
        ]
        says.append(f"By {AXES[axis]}: {'; '.join(parts)}.")
    return Picture(NAME, title, alternative(says), _figure(found, title))


def _figure(found: Mapping[str, Curve], title: str) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    figure = Figure(figsize=(3.0 + 3.2 * len(found), 3.7), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, 45 + 30 * len(found))), x=0.005, ha="left", fontsize=10.5)
    for axes, (axis, curve) in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found.items(), strict=True):
        _panel(axes, curve)
        axes.set_xlabel(AXES[axis])
    spots = [spot for curve in found.values() for _, line in curve for spot in _both(line)]
    figure.axes[0].set_ylim(*bounds(spots))
    figure.axes[0].set_ylabel("Overall, percent")
    legend_entry(figure.axes[0], "ours", color=BLUE, marker="o", linestyle=DASHES[0])
    legend_entry(figure.axes[0], "the paper's, items' error", color=VERMILLION, marker="D", markerfacecolor="none", linestyle=DASHES[1])
    figure.legend(loc="outside lower center", ncols=2, labelcolor=INK)
    return figure


def _both(line: Line) -> list[Spot]:
    return [side[OVERALL] for side in (line.ours, line.paper) if OVERALL in side]


def _panel(axes: Axes, curve: Curve) -> None:
    step = (curve[-1][0] - curve[0][0] or 1) / 120
    ours = [(value, line.ours[OVERALL]) for value, line in curve]
    paper = [(value, line.paper[OVERALL]) for value, line in curve if OVERALL in line.paper]
    for points, colour, marker, dash, aside in ((paper, VERMILLION, "D", DASHES[1], step), (ours, BLUE, "o", DASHES[0], -step)):
        axes.plot([x + aside for x, _ in points], [spot.value for _, spot in points], color=colour, linewidth=1.3, linestyle=dash)
        moved = [(x + aside, spot) for x, spot in points]
        draw_spots(axes, moved, colour=colour, marker=marker, upright=True, filled=marker == "o")
    axes.set_xticks([value for value, _ in curve])
