"""Standardisation, TopK and the autoencoder, on tensors written by hand."""

from __future__ import annotations

import pytest
import torch

from sarm.jobs.train.sae import held_out_quality
from sarm.sae.model import TopKSAE, masked_row_mean, normalized_mse, standardize, topk


def small_sae(k: int = 2, *, standardizes: bool = False) -> TopKSAE:
    """Three latents of two-dimensional states: the two axes and their sum."""
    sae = TopKSAE(hidden_size=2, n_latents=3, k=k, standardizes=standardizes)
    sae.load_state_dict(
        {
            "pre_bias": torch.tensor([1.0, 0.0]),
            "latent_bias": torch.tensor([0.0, 0.5, 0.0]),
            "encoder.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
            "decoder.weight": torch.tensor([[1.0, 0.0, 0.5], [0.0, 2.0, 0.5]]),
        }
    )
    return sae


def test_standardize_uses_the_unbiased_deviation_with_epsilon_outside_the_root() -> None:
    result = standardize(torch.tensor([[1.0, 2.0, 3.0]]))
    assert result.mean.tolist() == [[2.0]]
    assert result.std.tolist() == [[1.0]]
    torch.testing.assert_close(result.values, torch.tensor([[-1.0, 0.0, 1.0]]) / (1 + 1e-6))


def test_standardize_of_a_constant_token_is_zero_and_not_nan() -> None:
    assert standardize(torch.full((1, 4), 3.0)).values.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_topk_keeps_exactly_k_latents_even_when_values_tie() -> None:
    kept = topk(torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 3.0, 2.0, 1.0]]), 2)
    assert (kept != 0).sum(dim=-1).tolist() == [2, 2]
    assert kept[1].tolist() == [4.0, 3.0, 0.0, 0.0]


def test_topk_goes_by_value_so_that_negative_values_can_be_kept() -> None:
    assert topk(torch.tensor([-5.0, -1.0, -2.0]), 2).tolist() == [0.0, -1.0, -2.0]
    assert topk(torch.tensor([-5.0, 1.0, -2.0]), 1).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("k", [0, 4])
def test_k_outside_the_width_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} must lie between 1 and"):
        topk(torch.zeros(3), k)
    with pytest.raises(ValueError, match=f"k = {k} must lie between 1 and n_latents = 3"):
        TopKSAE(hidden_size=2, n_latents=3, k=k)


def test_topk_lets_the_gradient_through_the_kept_values_alone() -> None:
    pre_acts = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    topk(pre_acts, 2).sum().backward()
    assert pre_acts.grad is not None and pre_acts.grad.tolist() == [1.0, 0.0, 1.0]


def test_encode_and_decode_follow_the_formula() -> None:
    encoding = small_sae().encode(torch.tensor([[3.0, 1.0]]))
    # x - pre_bias = (2, 1): pre_acts (2, 1 + 0.5, 3), of which the largest two stay.
    assert encoding.pre_acts.tolist() == [[2.0, 1.5, 3.0]]
    assert encoding.latents.tolist() == [[2.0, 0.0, 3.0]]
    assert small_sae().decode(encoding.latents).tolist() == [[2.0 + 1.5 + 1.0, 1.5]]


def test_prepare_standardizes_only_when_the_sae_does() -> None:
    states = torch.tensor([[1.0, 3.0]])
    assert torch.equal(small_sae().prepare(states), states)
    assert torch.equal(small_sae(standardizes=True).prepare(states), standardize(states).values)


def test_decoder_columns_have_unit_length_after_normalization() -> None:
    sae = small_sae()
    sae.normalize_decoder()
    torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(3))
    torch.testing.assert_close(sae.decoder.weight[:, 1], torch.tensor([0.0, 1.0]))


def test_reset_depends_on_the_generator_alone_and_ties_the_decoder() -> None:
    one, other = (TopKSAE(hidden_size=4, n_latents=8, k=2) for _ in range(2))
    for sae in (one, other):
        sae.reset(torch.Generator().manual_seed(7))
    assert torch.equal(one.encoder.weight, other.encoder.weight)
    assert torch.equal(one.decoder.weight, one.encoder.weight.T)
    assert float(one.encoder.weight.detach().abs().max()) <= 0.5
    assert not one.pre_bias.any() and not one.latent_bias.any()


def test_normalized_mse_is_a_ratio_of_mean_squares() -> None:
    assert normalized_mse(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]])).tolist() == [0.5]


def test_masked_row_mean_counts_exactly_where_bfloat16_rounds() -> None:
    values, mask = torch.ones(1, 301), torch.ones(1, 301)
    assert float(masked_row_mean(values, mask)) == 1.0
    mask[0, 1:] = 0
    assert float(masked_row_mean(torch.tensor([[4.0] + [9.0] * 300]), mask)) == 4.0


def test_held_out_quality_of_a_perfect_and_of_a_mean_reconstruction() -> None:
    states = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    sae = TopKSAE(hidden_size=2, n_latents=3, k=2, standardizes=False)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    bias = torch.tensor([0.0, 0.0, -50.0])
    sae.load_state_dict(
        {"pre_bias": torch.zeros(2), "latent_bias": bias, "encoder.weight": weights, "decoder.weight": weights.T.contiguous()}
    )
    perfect = held_out_quality(sae, states)
    assert (perfect.fvu, perfect.normalized_mse) == (0.0, 0.0)
    assert perfect.dead_share == pytest.approx(1 / 3)
    assert perfect.l0 == 1.0
    with torch.no_grad():
        sae.decoder.weight.zero_()
    assert held_out_quality(sae, states).fvu == 1.0
