"""The claims as a forest of effects: each comparison with its interval, and the margin beyond which the claim holds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from replication.drawing import BLUE, GREEN, INK, LINE, MUTED, VERMILLION, plain
from replication.report.claims.definitions import ClaimResult, Effect
from replication.report.render.pictures.drawable import Picture, Spot, alternative, draw_spots, legend_entry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "claims"
TITLE = "The claims: effects with their intervals, and where each begins to hold"
# Marker and colour of an interval by what it rests on.
LOOKS: Mapping[str, tuple[str, str]] = {"published": (VERMILLION, "D"), "ours": (BLUE, "o")}
NAMED: Mapping[str, str] = {"published": "from published numbers", "ours": "from our own items"}
LABEL = 46


class Branch(NamedTuple):
    """One effect of one claim, on one basis."""

    claim: str
    basis: str
    source: str
    outcome: str
    effect: Effect


def branches(published: Sequence[ClaimResult], own: Mapping[str, Sequence[ClaimResult]]) -> list[Branch]:
    """Every effect, claim by claim: the published numbers' first, then ours under each protocol."""
    found = []
    for claim in published:
        found += [Branch(claim.id, "published", "published", claim.outcome, effect) for effect in claim.effects]
        for one in own.get(claim.id, ()):
            found += [Branch(claim.id, "ours", f"ours, {one.protocol}", one.outcome, effect) for effect in one.effects]
    return found


def forest(published: Sequence[ClaimResult], own: Mapping[str, Sequence[ClaimResult]]) -> Picture | None:
    """The picture; None where no claim has an effect."""
    found = branches(published, own)
    if not found:
        return None
    says = [f"{TITLE}. Points, mostly of Overall on RewardBench 2."]
    for one in found:
        ends = f"{one.effect.estimate:+.2f}, {one.effect.low:+.2f} to {one.effect.high:+.2f}"
        says.append(f"{_label(one)}: {ends}; {_holds(one.effect)}; {one.outcome}.")
    return Picture(NAME, TITLE, alternative(says), _figure(found))


def _label(one: Branch) -> str:
    return plain(f"{one.claim} {one.effect.label} ({one.source})", longest=120)


def _holds(effect: Effect) -> str:
    ends = [f"above {effect.above:g}"] if effect.above is not None else []
    ends += [f"below {effect.below:g}"] if effect.below is not None else []
    return f"holds {' and '.join(ends)}" if ends else "no margin"


def _ends(effect: Effect) -> tuple[float, float, float]:
    return effect.estimate, effect.low, effect.high


def _figure(found: Sequence[Branch]) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415 - only who draws needs it

    figure = Figure(figsize=(11.5, 1.5 + 0.34 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(TITLE, fontsize=10.5)
    ends = [end for one in found for end in (one.effect.low, one.effect.high, one.effect.above or 0.0, one.effect.below or 0.0)]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    for place, one in enumerate(found):
        effect = one.effect
        begin, end = effect.above if effect.above is not None else low, effect.below if effect.below is not None else high
        # Hatched, so that where a claim holds is seen without its colour.
        axes.barh(
            place, end - begin, left=begin, height=0.62, color="none", edgecolor=GREEN, hatch="////", linewidth=0, alpha=0.45, zorder=0
        )
        for margin in (effect.above, effect.below):
            if margin is not None:
                axes.plot([margin, margin], [place - 0.38, place + 0.38], color=GREEN, linewidth=1.6, zorder=1)
        if place and one.claim != found[place - 1].claim:
            axes.axhline(place - 0.5, color=LINE, linewidth=0.8)
    for basis, (colour, marker) in LOOKS.items():
        spots = [(place, Spot(*_ends(one.effect))) for place, one in enumerate(found) if one.basis == basis]
        draw_spots(axes, [(float(place), spot) for place, spot in spots], colour=colour, marker=marker, upright=False)
    axes.axvline(0, color=MUTED, linewidth=0.9)
    axes.set_yticks(range(len(found)), ["\n".join(textwrap.wrap(_label(one), LABEL)[:2]) for one in found], fontsize=8)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(found)), [one.outcome.lower() for one in found], fontsize=8)
    right.tick_params(length=0)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(low, high)
    axes.set_xlabel("points")
    for basis, (colour, marker) in LOOKS.items():
        if any(one.basis == basis for one in found):
            legend_entry(axes, NAMED[basis], color=colour, marker=marker, linewidth=1.5)
    legend_entry(axes, "margin: the hatched side is where the claim holds", color=GREEN, linewidth=1.6)
    figure.legend(loc="outside lower center", ncols=3, labelcolor=INK)
    return figure
