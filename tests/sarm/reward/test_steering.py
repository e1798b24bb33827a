"""Feature scores and edits of latents, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from sarm.reward.steering import Edit, feature_scores, steer


def test_feature_score_is_the_difference_over_the_sum_and_the_mean_sum() -> None:
    chosen = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    rejected = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    # c = (3, 1), j = (1, 3), both sums 4, their mean 4.
    assert feature_scores(chosen, rejected).tolist() == [2 / 8, -2 / 8]


def test_a_latent_that_is_never_active_scores_zero() -> None:
    assert feature_scores(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0]])).tolist()[0] == 0.0


def test_feature_scores_without_a_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        feature_scores(torch.zeros(0, 3), torch.zeros(0, 3))


def test_multiplying_a_latent_equals_scaling_its_head_weight() -> None:
    latents, weights = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0.5, 3.0, 7.0])
    scaled = weights * torch.tensor([1.0, 4.0, 1.0])
    assert torch.equal(steer(latents, {1: Edit("*", 4.0)}) @ weights, latents @ scaled)


def test_adding_also_moves_an_inactive_latent_and_multiplying_does_not() -> None:
    latents = torch.tensor([[0.0, 2.0]])
    assert steer(latents, {0: Edit("+", 1.5)}).tolist() == [[1.5, 2.0]]
    assert steer(latents, {0: Edit("*", 9.0)}).tolist() == [[0.0, 2.0]]


def test_steering_leaves_its_input_as_it_was_and_no_edit_is_the_identity() -> None:
    latents = torch.tensor([[1.0, 2.0]])
    steer(latents, {0: Edit("*", 0.0), 1: Edit("+", 1.0)})
    assert latents.tolist() == [[1.0, 2.0]]
    assert torch.equal(steer(latents, {}), latents)


@pytest.mark.parametrize("latent", [-1, 2])
def test_a_latent_outside_the_width_is_refused(latent: int) -> None:
    with pytest.raises(ValueError, match=f"latent {latent} does not exist"):
        steer(torch.zeros(1, 2), {latent: Edit("*", 2.0)})
