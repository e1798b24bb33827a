"""Accuracies as intervals: ours with its seeds, the paper's value with what its digits and items allow, and chance."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from replication.drawing import BLUE, INK, LINE, MUTED, VERMILLION, plain
from replication.report.cells import Cell, Report, Row, Table
from replication.report.claims.definitions import load_claims
from replication.report.claims.published import Numbers
from replication.report.counts import coarsest_grain
from replication.report.measurements import items_interval
from replication.report.published import PublishedTable, countable_columns, load_published, published_names
from replication.report.render.pictures.drawable import Picture, Spot, alternative, bounds, draw_spots, heading, legend_entry, spoken
from replication.report.statistics import mean_over_seeds, normal_quantile, wilson
from sarm.metrics.credits import OVERALL
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "intervals"
# One right answer of four; Ties is no best of four, so that Overall, which counts it, has no such line either.
CHANCE = 100 / 4
WITH_CHANCE = tuple(name for name in REWARDBENCH2_SUBSETS if name != "Ties")
MOST_ROWS = 40
LABEL = 26


class Line(NamedTuple):
    """A row of the picture: column -> what is known of it."""

    label: str
    ours: dict[str, Spot]
    paper: dict[str, Spot]


def accuracy_table(report: Report) -> Table | None:
    """The table of a report that has RewardBench 2's columns and numbers of ours; None where there is none."""
    fitting = (table for table in report.tables if {OVERALL, *REWARDBENCH2_SUBSETS} <= set(table.columns))
    return next((table for table in fitting if any(cell.ours for row in table.rows for cell in row.cells)), None)


def lines_of(table: Table, report: Report) -> list[Line]:
    """The rows that were measured, in the table's order."""
    published = load_published(table.name) if table.name in published_names() else None
    rows = [row for row in table.rows if any(cell.ours for cell in row.cells)]
    return [_line(row, published, retrained=report.regime == "retrained") for row in rows]


def own_spot(cell: Cell) -> Spot | None:
    """Our number with its 95 % interval: over seeds where there are several, else over items."""
    ours = cell.ours
    if ours is None:
        return None
    if len(ours.per_seed) > 1:
        found = mean_over_seeds(ours.per_seed)
        return Spot(ours.value, found.low, found.high, ours.per_seed)
    over_items = items_interval(ours, counted=True)
    return Spot(ours.value, *(over_items or (ours.value, ours.value)))


def paper_spot(published: PublishedTable, row: str, column: str) -> Spot | None:
    """A printed value with what its digits and items allow; Ties with its digits alone, since nothing says what its items were."""
    printed = published.printed(row, column)
    if printed is None or column not in published.columns:
        return None
    digits, value = published.interval(row, column), float(printed)
    low, high = float(digits.low), float(digits.high)
    if column == OVERALL:
        if set(REWARDBENCH2_SUBSETS) <= set(published.row(row).cells):
            file = load_claims()
            half = normal_quantile(0.975) * Numbers(published, file.ties_groups, file.alpha, {}).error(row)
            low, high = low - half, high + half
    elif column in countable_columns(published):
        n = published.n[column]
        # Where no count prints so (a defect of the table), what the digits say is taken as it is.
        grain = published.row(row).grain or coarsest_grain(digits, n=n)
        counts = published.counts(row, column, grain=grain) if grain else ()
        ends = (float(counts[0]), float(counts[-1])) if counts else (n * low / 100, n * high / 100)
        low, high = wilson(max(ends[0], 0.0), n).low, wilson(min(ends[1], n), n).high
    return Spot(value, low, high)


def _line(row: Row, published: PublishedTable | None, *, retrained: bool) -> Line:
    ours = {cell.column: spot for cell in row.cells if (spot := own_spot(cell)) is not None}
    paper: dict[str, Spot] = {}
    if published is not None and any(one.name == row.name for one in published.rows):
        found = {column: paper_spot(published, row.name, column) for column in ours}
        paper = {column: spot for column, spot in found.items() if spot is not None}
    return Line(label=plain(f"{row.label} {row.size if retrained and paper else ''}"), ours=ours, paper=paper)


def intervals(report: Report) -> Picture | None:
    """Table 1 or 2 (or another table of their columns) as a picture; None where nothing was measured."""
    table = accuracy_table(report)
    if table is None:
        return None
    lines = lines_of(table, report)
    shown = lines[:MOST_ROWS]
    title = heading(table.title, report)
    drawn = _figure(table.columns, shown, title=title, total=len(lines))
    return Picture(NAME, title, alternative([f"{title}.", *_says(report, table, lines)]), drawn)


def _says(report: Report, table: Table, lines: Sequence[Line]) -> Iterator[str]:
    yield f"Percent with 95 % intervals; chance is {CHANCE:g} in {', '.join(one for one in table.columns if one in WITH_CHANCE)}."
    if not report.comparable:
        yield f"Not comparable with the paper: {report.why_not_comparable}."
    for line in lines:
        parts = []
        for column in (one for one in table.columns if one in line.ours):
            beside = f", paper {spoken(line.paper[column])}" if column in line.paper else ""
            parts.append(f"{column} {spoken(line.ours[column])}{beside}")
        yield f"{line.label}: {'; '.join(parts)}."


def _figure(names: Sequence[str], lines: Sequence[Line], *, title: str, total: int) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    columns = [column for column in names if any(column in line.ours for line in lines)]
    height = 1.7 + 0.44 * len(lines)
    figure = Figure(figsize=(12.6, height), layout="constrained")
    more = f" (the first {len(lines)} of {total} rows)" if total > len(lines) else ""
    figure.suptitle("\n".join(textwrap.wrap(title + more, 130)), x=0.005, ha="left", fontsize=10.5)
    for place, (axes, column) in enumerate(zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True)):
        _panel(axes, lines, column)
        labels = ["\n".join(textwrap.wrap(plain(line.label, longest=2 * LABEL), LABEL)) for line in lines] if place == 0 else []
        axes.set_yticks(range(len(lines)), labels or [""] * len(lines))
    _legend(figure, several=any(spot.seeds for line in lines for spot in line.ours.values()))
    return figure


def _panel(axes: Axes, lines: Sequence[Line], column: str) -> None:
    axes.hlines(range(len(lines)), 0, 1, transform=axes.get_yaxis_transform(), color=LINE, linewidth=0.6, zorder=0)
    paper = [(place + 0.17, line.paper[column]) for place, line in enumerate(lines) if column in line.paper]
    ours = [(place - 0.13, line.ours[column]) for place, line in enumerate(lines) if column in line.ours]
    draw_spots(axes, paper, colour=VERMILLION, marker="D", upright=False, filled=False)
    draw_spots(axes, ours, colour=BLUE, marker="o", upright=False)
    if column in WITH_CHANCE:
        axes.axvline(CHANCE, color=INK, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    axes.set_xlim(*bounds([spot for _, spot in (*ours, *paper)], [CHANCE] if column in WITH_CHANCE else []))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_title(plain(column, longest=18))
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, *, several: bool) -> None:
    axes = figure.axes[0]
    legend_entry(axes, "ours, mean and 95 % interval", color=BLUE, marker="o", linewidth=1.5)
    if several:
        legend_entry(axes, "ours, a seed", color=BLUE, marker="|", linestyle="")
    legend_entry(axes, "the paper's, with what digits and items allow", color=VERMILLION, marker="D", markerfacecolor="none", linewidth=1.5)
    legend_entry(axes, "chance, best of four", color=INK, linewidth=0.9, linestyle=(0, (3, 3)))
    figure.legend(loc="outside lower center", ncols=4, labelcolor=INK, edgecolor=MUTED)
