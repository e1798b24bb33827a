"""A picture before it is a file: what it is called, what it says in words, and the drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from replication.drawing import PAPER, FigureFormat, plain, save
from replication.report.cells import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: tuple[FigureFormat, ...] = ("svg", "png")
# A text alternative is heard in one piece: numbers beyond this many stand in the table alone.
LONGEST_ALTERNATIVE = 4000


class Picture(NamedTuple):
    """`name` is the last part of its files' names; `says` is its text alternative, with the numbers."""

    name: str
    title: str
    says: str
    figure: Figure


def heading(what: str, report: Report) -> str:
    """What a picture shows and of which run; a miniature's must never be taken for the paper's."""
    scale = "" if report.comparable else " (a miniature)" if report.profile == "mini" else " (not comparable with the paper)"
    seeds = ", ".join(map(str, report.seeds)) or "none"
    return plain(f"{what}, profile {report.profile}{scale}, protocol {report.protocol}, seeds {seeds}")


class Spot(NamedTuple):
    """A value with its interval (95 %, of a claim the one that its test uses), and each seed where there are several; percent or points."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()


def write(picture: Picture, folder: Path, *, before: str) -> tuple[Path, ...]:
    """Writes `<before>-<name>.svg` and `.png`; the paths."""
    name = f"{before}-{picture.name}" if before else picture.name
    return save(picture.figure, folder, name, FORMATS, title=picture.title, description=picture.says)


def alternative(parts: Iterable[str]) -> str:
    """Parts as one text, cut with a count of what is left out."""
    whole = [plain(part) for part in parts]
    kept: list[str] = []
    for place, part in enumerate(whole):
        if sum(map(len, kept)) + len(part) > LONGEST_ALTERNATIVE:
            return f"{' '.join(kept)} And {len(whole) - place} more, which stand in the table."
        kept.append(part)
    return " ".join(kept)


def draw_spots(
    axes: Axes, spots: Sequence[tuple[float, Spot]], *, colour: str, marker: str, upright: bool, filled: bool = True
) -> None:
    """A marker with its interval at each place, and a stroke for each seed; `upright` has values on the y axis."""
    if not spots:
        return
    places, found = [place for place, _ in spots], [spot for _, spot in spots]
    lines = axes.vlines if upright else axes.hlines
    lines(places, [one.low for one in found], [one.high for one in found], color=colour, linewidth=1.5)
    seeds = [(place, seed) for place, one in spots for seed in one.seeds]
    _marks(axes, seeds, upright=upright, color=colour, marker="_" if upright else "|", markersize=7, markeredgewidth=1.0)
    face = colour if filled else PAPER
    means = [(place, one.value) for place, one in spots]
    _marks(axes, means, upright=upright, color=colour, marker=marker, markersize=4.8, markerfacecolor=face)


def _marks(axes: Axes, points: Sequence[tuple[float, float]], *, upright: bool, **look: Any) -> None:
    places, values = [place for place, _ in points], [value for _, value in points]
    axes.plot(*((places, values) if upright else (values, places)), linestyle="", **look)


def legend_entry(axes: Axes, label: str, **look: Any) -> None:
    """An entry of the legend for what is drawn piece by piece."""
    axes.plot([], [], label=label, **look)


def spoken(spot: Spot) -> str:
    """A spot in words."""
    seeds = f" (seeds {', '.join(f'{one:.1f}' for one in spot.seeds)})" if spot.seeds else ""
    return f"{spot.value:.1f}, {spot.low:.1f} to {spot.high:.1f}{seeds}"


def bounds(spots: Sequence[Spot], others: Sequence[float] = ()) -> tuple[float, float]:
    """The ends of an axis of percentages that holds these, with some air, and never beyond 0 and 100 by more than that air."""
    values = [end for spot in spots for end in (spot.low, spot.high, spot.value)] + list(others)
    low, high = min(values, default=0.0), max(values, default=100.0)
    air = max(0.06 * (high - low), 1.0)
    return max(low - air, -3.0) if low >= 0 else low - air, min(high + air, 103.0) if high <= 100 else high + air
