"""Bradley-Terry losses and attribution, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sarm.reward.losses import attribution, preference_losses


def test_equal_rewards_cost_log_two() -> None:
    assert preference_losses(torch.tensor([3.0]), torch.tensor([3.0])).tolist() == pytest.approx([math.log(2)])


def test_loss_depends_on_the_difference_alone() -> None:
    losses = preference_losses(torch.tensor([1.0, 101.0, 0.0]), torch.tensor([0.0, 100.0, 1.0]))
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-1)), math.log1p(math.exp(-1)), math.log1p(math.exp(1))], rel=1e-5)


def test_huge_differences_neither_overflow_nor_vanish() -> None:
    losses = preference_losses(torch.tensor([-500.0, 500.0]), torch.tensor([500.0, -500.0]))
    assert losses.tolist() == [1000.0, 0.0]


def test_low_precision_rewards_are_compared_in_float32() -> None:
    assert preference_losses(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32


def test_attribution_orders_by_absolute_contribution() -> None:
    shares = attribution(torch.tensor([[1.0, 2.0, 0.0, 3.0]]), torch.tensor([0.5, -4.0, 9.0, 1.0]), top=2)
    assert shares.latents.tolist() == [[1, 3]]
    assert shares.activations.tolist() == [[2.0, 3.0]]
    assert shares.weights.tolist() == [[-4.0, 1.0]]
    assert shares.contributions.tolist() == [[-8.0, 3.0]]


def test_contributions_of_all_latents_sum_to_the_reward() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, weights = torch.randn(3, 10, generator=generator), torch.randn(10, generator=generator)
    shares = attribution(latents, weights, top=99)
    torch.testing.assert_close(shares.contributions.sum(dim=-1), latents @ weights)
