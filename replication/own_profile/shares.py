"""The paper's layers and k on a model of other sizes: at the same share of its depth and width, with a note where none is exact."""

from __future__ import annotations

from typing import NamedTuple

from replication.settings.profiles import Backbone, Counterpart, Shape


class Counterparts(NamedTuple):
    """The paper's layer and the paper's k -> this model's."""

    layers: dict[int, Counterpart]
    ks: dict[int, Counterpart]


def counterparts(paper: Backbone, own: Shape) -> Counterparts:
    """Of every layer and k that the paper's rows have on one of its two models; `paper` is its slot of the profile `paper`."""
    depth, width = paper.sizes.num_hidden_layers, paper.sizes.hidden_size
    return Counterparts(
        layers={one: _at_share("layer", one, depth, own.num_hidden_layers, "depth") for one in paper.layers},
        ks={one: _at_share("k", one, width, own.hidden_size, "width") for one in paper.ks},
    )


def _at_share(name: str, value: int, whole: int, own_whole: int, of: str) -> Counterpart:
    # Halves go up, in whole numbers: no share may depend on how a float is rounded.
    own = max(1, (2 * value * own_whole + whole) // (2 * whole))
    if own * whole == value * own_whole:
        return Counterpart(value=own)
    share, own_share = _percents(100 * value / whole, 100 * own / own_whole)
    return Counterpart(
        value=own, inexact=f"{name} {value} of {whole} is {share} % of the {of}, its counterpart {own} of {own_whole} is {own_share} %"
    )


def _percents(one: float, other: float) -> tuple[str, str]:
    """Both with so few digits that one sees the difference."""
    return next((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(3, 18) if f"{one:.{digits}g}" != f"{other:.{digits}g}")
