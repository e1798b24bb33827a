"""SparseRM's ranking, projections, head and losses and SAFER's score, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sarm.reward.sparse_rm import (
    Activations,
    Dense,
    Projections,
    StateHead,
    accuracy,
    added,
    head_parameters,
    latent_statistics,
    pair_losses,
    pair_statistics,
    projections,
    random_columns,
    random_directions,
    safer_head,
    safer_scores,
    separation,
    strongest,
    top_per_side,
)
from sarm.sae.model import TopKSAE, standardize

CHOSEN = torch.tensor([[2.0, 0.0, 0.0, -1.0], [1.0, 0.0, 3.0, 0.0]])
REJECTED = torch.tensor([[0.0, 4.0, 0.0, 0.0], [0.5, 1.0, 3.0, 0.0]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_sae() -> TopKSAE:
    """Latents 0 and 1 read the two coordinates, latents 2 and 3 their negatives; k = 1; no standardisation."""
    sae = TopKSAE(hidden_size=2, n_latents=4, k=1, standardizes=False)
    with torch.no_grad():
        sae.encoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
        sae.decoder.weight.copy_(sae.encoder.weight.T)
    return sae


def test_separation_is_the_difference_of_the_shares_of_replies_in_which_a_latent_fires() -> None:
    found = pair_statistics(CHOSEN, REJECTED)
    assert found.chosen_fired.tolist() == [2, 0, 1, 0] and found.rejected_fired.tolist() == [1, 2, 1, 0]
    assert separation(found).tolist() == [0.5, -1.0, 0.0, 0.0]


def test_a_negative_latent_neither_fires_nor_counts() -> None:
    found = pair_statistics(CHOSEN, REJECTED)
    assert found.chosen_fired[3] == 0 and found.chosen_sum[3] == 0


def test_statistics_of_parts_add_up_to_those_of_the_whole() -> None:
    whole = pair_statistics(CHOSEN, REJECTED)
    parts = added(pair_statistics(CHOSEN[:1], REJECTED[:1]), pair_statistics(CHOSEN[1:], REJECTED[1:]))
    assert parts.pairs == whole.pairs == 2
    assert all(torch.equal(one, other) for one, other in zip(parts[:4], whole[:4], strict=True))


def test_the_ranking_takes_the_largest_then_the_smallest_and_the_lower_index_at_a_tie() -> None:
    differences = torch.tensor([0.1, 0.5, -0.5, 0.5, -0.2, 0.0, 0.0, -0.5])
    assert top_per_side(differences, 2).tolist() == [1, 3, 2, 7]
    assert top_per_side(differences, 3).tolist() == [1, 3, 0, 2, 7, 4]
    assert top_per_side(torch.zeros(5), 2).tolist() == [0, 1, 2, 3], "no latent stands for both sides, even when all are tied"


@pytest.mark.parametrize("per_side", [0, 5])
def test_a_ranking_that_the_dictionary_cannot_give_is_refused(per_side: int) -> None:
    with pytest.raises(ValueError, match=f"per_side = {per_side} takes"):
        top_per_side(torch.zeros(8), per_side)


def test_random_columns_are_different_and_repeatable() -> None:
    found = random_columns(10, 4, seeded())
    assert len(set(found.tolist())) == 8 and torch.equal(found, random_columns(10, 4, seeded()))
    assert not torch.equal(found, random_columns(10, 4, seeded(1)))
    with pytest.raises(ValueError, match="per_side = 6 takes 12 of 10"):
        random_columns(10, 6, seeded())


def test_random_directions_have_length_one_and_no_preferred_side() -> None:
    found = random_directions(4000, 3, seeded())
    assert torch.allclose(found.norm(dim=-1), torch.ones(4000)) and found.mean(dim=0).abs().max() < 0.05


def test_a_projection_is_an_inner_product_that_is_not_rectified() -> None:
    states, directions = torch.tensor([[1.0, 2.0], [-3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0], [2.0, 2.0]])
    assert projections(states, directions).tolist() == [[1.0, -2.0, 6.0], [-3.0, 0.0, -6.0]]


def test_projections_see_standardised_states_where_the_sae_does() -> None:
    states, directions = torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    assert float(Projections(directions, "none")(states)) == 6.0
    assert float(Projections(directions, "standardize")(states)) == pytest.approx(float(standardize(states).values[0, 2]))


def test_activations_are_the_sae_s_latents_of_those_indices_alone() -> None:
    reader = Activations(tiny_sae(), torch.tensor([2, 1]))
    # k = 1: of (3, -1) latent 0 is kept, of (-2, 1) latent 2, of (0.5, 4) latent 1.
    assert reader(torch.tensor([[3.0, -1.0], [-2.0, 1.0], [0.5, 4.0]])).tolist() == [[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]
    assert not any(one.requires_grad for one in reader.parameters())


def test_a_linear_head_is_an_inner_product_and_an_mlp_has_one_rectified_layer() -> None:
    linear = StateHead(Dense(2, "none"))
    with torch.no_grad():
        linear.score.weight.copy_(torch.tensor([[2.0, -1.0]]))
    assert linear(torch.tensor([[1.0, 3.0], [4.0, 0.0]])).tolist() == [-1.0, 8.0]
    mlp = StateHead(Dense(2, "none"), width=2)
    assert mlp.hidden is not None
    with torch.no_grad():
        mlp.hidden.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        mlp.hidden.bias.copy_(torch.tensor([0.0, -1.0]))
        mlp.score.weight.copy_(torch.tensor([[1.0, 10.0]]))
    # (1, 3) -> (1, 2) -> 21; (-4, 0) -> (0, 0) -> 0.
    assert mlp(torch.tensor([[1.0, 3.0], [-4.0, 0.0]])).tolist() == [21.0, 0.0]


def test_the_seed_decides_a_head_s_first_weights() -> None:
    heads = [StateHead(Dense(3, "none"), width=4) for _ in range(3)]
    for head, seed in zip(heads, (0, 0, 1), strict=True):
        head.reset(seeded(seed))
    assert torch.equal(heads[0].score.weight, heads[1].score.weight)
    assert not torch.equal(heads[0].score.weight, heads[2].score.weight)
    assert heads[0].hidden is not None and heads[0].hidden.weight.abs().max() <= 3**-0.5


def test_the_margin_loss_is_zero_beyond_the_margin_and_falls_linearly_before_it() -> None:
    chosen, rejected = torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 0.5, 2.0])
    assert pair_losses(chosen, rejected, loss="margin", margin=1.0).tolist() == [0.0, 0.5, 3.0]
    assert pair_losses(chosen, rejected, loss="margin", margin=2.0).tolist() == [0.0, 1.5, 4.0]


def test_the_bradley_terry_loss_is_that_of_reward_training() -> None:
    found = pair_losses(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), loss="bradley_terry")
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)], rel=1e-6)


def test_the_cross_entropy_sees_each_reply_alone() -> None:
    found = pair_losses(torch.tensor([2.0, 5.0]), torch.tensor([-1.0, 5.0]), loss="bce")
    first = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    second = (math.log(1 + math.exp(-5)) + math.log(1 + math.exp(5))) / 2
    assert found.tolist() == pytest.approx([first, second], rel=1e-6)


def test_a_shift_of_all_rewards_changes_the_cross_entropy_alone() -> None:
    chosen, rejected = torch.tensor([1.0]), torch.tensor([0.5])
    for loss, same in (("margin", True), ("bradley_terry", True), ("bce", False)):
        plain, moved = (pair_losses(chosen + by, rejected + by, loss=loss) for by in (0.0, 3.0))  # type: ignore[arg-type]
        assert torch.allclose(plain, moved) is same, loss


def test_half_a_pair_is_right_at_an_exact_tie() -> None:
    assert accuracy(torch.tensor([1.0, 1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])) == 0.625
    assert math.isnan(accuracy(torch.zeros(0), torch.zeros(0)))


def test_parameters_are_counted_as_they_are_and_stay_below_one_per_cent_of_the_paper_s_backbones() -> None:
    for inputs, width in ((8, 5), (6, 0)):
        head = StateHead(Dense(inputs, "none"), width=width)
        assert sum(one.numel() for one in head.parameters()) == head_parameters(inputs, width)
    # K = 128, 512 hidden units: about 1.3e5, as the paper's description says.
    assert head_parameters(256, 512) == 132096
    assert head_parameters(256, 512) / 2.6e9 < 0.0001 and (head_parameters(256, 512) + 256 * 2304) / 2.6e9 < 0.01


def test_safer_s_score_is_its_formula() -> None:
    # h+ = 3, 0, 3, 0; h- = 0.5, 5, 3, 0; C = mean of 3.5, 5, 6, 0.
    scores = safer_scores(pair_statistics(CHOSEN, REJECTED))
    mean = 14.5 / 4
    assert scores.tolist() == pytest.approx([2.5 / (3.5 + mean), -5 / (5 + mean), 0.0, 0.0])


def test_the_strongest_latents_are_those_of_either_sign_and_never_a_silent_one() -> None:
    scores = torch.tensor([0.1, -0.4, 0.0, 0.4, -0.2])
    assert strongest(scores, 3).tolist() == [1, 3, 4]
    assert strongest(scores, 10).tolist() == [1, 3, 4, 0]
    with pytest.raises(ValueError, match="nothing to score with"):
        strongest(torch.zeros(4), 2)


def test_safer_s_reward_is_the_signed_sum_of_the_latents() -> None:
    head = safer_head(tiny_sae(), torch.tensor([0.5, -0.9, 0.0, 0.1]), 2)
    # Latent 0 counts with +, latent 1 with -; latent 2 is not among them.
    assert head(torch.tensor([[3.0, 1.0], [0.5, 4.0], [-2.0, 1.0]])).tolist() == [3.0, -4.0, 0.0]


def test_latents_are_counted_in_parts_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, states = tiny_sae(), torch.randn(7, 2, generator=seeded())
    whole = latent_statistics(sae, states, -states)
    monkeypatch.setattr("sarm.reward.sparse_rm.PAIRS_AT_ONCE", 2)
    parts = latent_statistics(sae, states, -states)
    assert all(torch.allclose(one, other) for one, other in zip(whole[:4], parts[:4], strict=True)) and parts.pairs == 7
    with pytest.raises(ValueError, match="no pair"):
        latent_statistics(sae, states[:0], states[:0])
