"""A reward as the sum of its latents: the largest contributions, the rest as one bar, in float64 from the head's own float32 numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Bar(NamedTuple):
    """One latent: its activation, the head's weight on it as trained, the factor on that weight, and the product of all three."""

    latent: int
    activation: float
    weight: float
    factor: float
    contribution: float


class Waterfall(NamedTuple):
    """Bars by absolute contribution, the largest first; `rest` sums the `others`, active latents that are not listed.

    `bias` is what the head gives without any latent. Bars, rest and bias sum to the reward up to the rounding of its float32.
    """

    bars: tuple[Bar, ...]
    rest: float
    others: int
    bias: float


class Difference(NamedTuple):
    """Two rewards of one head, the first minus the second, latent by latent: (latent, first's part, second's part), largest first."""

    bars: tuple[tuple[int, float, float], ...]
    rest: float
    others: int


class Head(NamedTuple):
    """What contributions are made of: the latents' numbers, the weights as trained and the factors on them, `[features]`; the bias."""

    latents: Tensor
    weights: Tensor
    factors: Tensor
    bias: float

    def contributions(self, features: Tensor) -> Tensor:
        """`[features]` in float64."""
        return features.double() * self.weights.double() * self.factors.double()


def waterfall(head: Head, features: Tensor, *, top: int, always: Mapping[int, float]) -> Waterfall:
    """The `top` contributions to a reward with `features` `[features]`, and those of the places `always`, whatever they are."""
    parts = head.contributions(features)
    listed = _largest(parts.abs(), top=top, always=always)
    bars = [
        Bar(*(column[place].item() for column in (head.latents, features, head.weights, head.factors, parts)))  # type: ignore[arg-type]
        for place in listed
    ]
    rest = _without(parts, listed)
    return Waterfall(tuple(bars), float(rest.sum()), int((rest != 0).sum()), head.bias)


def difference(head: Head, first: Tensor, second: Tensor, *, top: int, always: Mapping[int, float]) -> Difference:
    """What of two replies' rewards differs, by the same rule; the bias is in both."""
    parts = head.contributions(first), head.contributions(second)
    whole = parts[0] - parts[1]
    listed = _largest(whole.abs(), top=top, always=always)
    bars = tuple((int(head.latents[place]), float(parts[0][place]), float(parts[1][place])) for place in listed)
    rest = _without(whole, listed)
    return Difference(bars, float(rest.sum()), int((rest != 0).sum()))


def _largest(sizes: Tensor, *, top: int, always: Mapping[int, float]) -> list[int]:
    """Places of the largest sizes that are not 0, and of those that are listed in any case, the largest first."""
    found = sizes.topk(min(top, len(sizes))).indices.tolist()
    kept = [place for place in found if sizes[place] > 0]
    return sorted({*kept, *always}, key=lambda place: (-float(sizes[place]), place))


def _without(parts: Tensor, listed: list[int]) -> Tensor:
    rest = parts.clone()
    rest[torch.tensor(listed, dtype=torch.long)] = 0.0
    return rest
