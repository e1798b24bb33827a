"""A reward as the sum of its latents: what is listed, what is the rest, and that all of it sums to the reward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sarm.demo.waterfall import Head, difference, waterfall

NUMBERS = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40)


def head(weights: list[float], factors: dict[int, float] | None = None, *, bias: float = 0.0) -> Head:
    """A head on latents 100, 101, ..."""
    scaled = torch.ones(len(weights))
    for place, factor in (factors or {}).items():
        scaled[place] = factor
    return Head(torch.arange(len(weights)) + 100, torch.tensor(weights), scaled, bias)


def test_the_largest_contributions_are_listed_and_the_rest_is_one_bar() -> None:
    found = waterfall(head([1.0, -2.0, 0.5, 1.0]), torch.tensor([1.0, 3.0, 1.0, 0.0]), top=2, always={})
    assert [(bar.latent, bar.contribution) for bar in found.bars] == [(101, -6.0), (100, 1.0)]
    assert (found.rest, found.others, found.bias) == (0.5, 1, 0.0)


def test_a_latent_that_does_not_fire_is_listed_only_where_it_is_scaled() -> None:
    features = torch.tensor([0.0, 2.0])
    assert [bar.latent for bar in waterfall(head([1.0, 1.0]), features, top=5, always={}).bars] == [101]
    found = waterfall(head([1.0, 1.0], {0: 3.0}), features, top=5, always={0: 3.0})
    assert [(bar.latent, bar.factor, bar.contribution) for bar in found.bars] == [(101, 1.0, 2.0), (100, 3.0, 0.0)]


def test_without_any_active_latent_nothing_is_listed() -> None:
    found = waterfall(head([1.0, 1.0], bias=0.25), torch.zeros(2), top=5, always={})
    assert found == ((), 0.0, 0, 0.25)


@given(NUMBERS, st.integers(1, 12), st.floats(-3, 3, width=32))
def test_bars_rest_and_bias_sum_to_the_linear_reward(weights: list[float], top: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(len(weights))
    features = torch.randn(len(weights), generator=generator)
    scaled = head(weights, {0: factor})
    found = waterfall(scaled, features, top=top, always={0: factor})
    whole = float((features.double() * scaled.weights.double() * scaled.factors.double()).sum())
    assert sum(bar.contribution for bar in found.bars) + found.rest + found.bias == pytest.approx(whole, abs=1e-9)
    assert len(found.bars) + found.others <= len(weights)


def test_a_difference_is_the_difference_of_both_latent_by_latent() -> None:
    first, second = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 1.0])
    found = difference(head([1.0, 2.0, 0.5]), first, second, top=1, always={})
    assert found == (((101, 4.0, 0.0),), -0.5, 1)
    assert difference(head([1.0, 2.0, 0.5]), first, first, top=3, always={}) == ((), 0.0, 0)
