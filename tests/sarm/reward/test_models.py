"""The reward models obey their algebra."""

from __future__ import annotations

import pytest
import torch
from tiny import HIDDEN, llama_config

from sarm.backbone.decoder import truncated_backbone
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel
from sarm.reward.steering import Edit
from sarm.sae.model import TopKSAE, standardize

ROWS = [[0, 9, 10, 11, 4], [0, 12, 13, 4], [0, 14, 4]]
PAD = 5
IDS = torch.tensor([row + [PAD] * (5 - len(row)) for row in ROWS])
LAST = torch.tensor([len(row) - 1 for row in ROWS])


def sarm(*, latents: str = "topk", layer: int = 2) -> SARM:
    """A random SARM with a random head and biases."""
    torch.manual_seed(3)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return SARM(truncated_backbone(llama_config(), layer), sae, latents=latents).eval()


def models() -> dict[str, RewardModel]:
    """One of each kind, with random heads."""
    torch.manual_seed(4)
    config = llama_config()
    return {
        "topk": sarm(),
        "pre_acts": sarm(latents="pre_acts"),
        "linear": LinearEncoderRewardModel(truncated_backbone(config, 2), hidden_size=HIDDEN, n_latents=24).eval(),
        "dense": DenseRewardModel(truncated_backbone(config, 2, keep_final_norm=True), hidden_size=HIDDEN).eval(),
    }


@pytest.mark.parametrize("kind", ["topk", "pre_acts", "linear", "dense"])
def test_right_padding_needs_no_mask(kind: str) -> None:
    model = models()[kind]
    with torch.no_grad():
        padded = model(IDS, LAST).rewards
        masked = model(IDS, LAST, (IDS != PAD).long()).rewards
        single = torch.cat([model(torch.tensor([row]), torch.tensor([len(row) - 1])).rewards for row in ROWS])
    torch.testing.assert_close(padded, single, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(masked, single, rtol=1e-5, atol=1e-5)


def test_reward_is_the_sum_of_head_weights_times_kept_latents() -> None:
    model = sarm()
    with torch.no_grad():
        output = model(IDS, LAST)
        assert output.features is not None
        assert ((output.features != 0).sum(dim=-1) == 4).all()
        torch.testing.assert_close(output.rewards, output.features @ model.score.weight[0])


def test_pre_acts_head_collapses_to_one_vector_on_standardized_states() -> None:
    model = sarm(latents="pre_acts")
    with torch.no_grad():
        output = model(IDS, LAST)
        pooled = output.hidden_states[torch.arange(len(IDS)), LAST]
        direction = model.score.weight[0] @ model.sae.encoder.weight
        constant = model.score.weight[0] @ (model.sae.latent_bias - model.sae.encoder.weight @ model.sae.pre_bias)
        torch.testing.assert_close(output.rewards, standardize(pooled).values @ direction + constant, rtol=1e-4, atol=1e-4)


def test_linear_encoder_control_equals_a_linear_head_with_bias() -> None:
    model = models()["linear"]
    assert isinstance(model, LinearEncoderRewardModel)
    with torch.no_grad():
        output = model(IDS, LAST)
        pooled = output.hidden_states[torch.arange(len(IDS)), LAST]
        weight = model.score.weight[0] @ model.untrained_sae_encoder.weight
        bias = model.score.weight[0] @ model.untrained_sae_encoder.bias
        torch.testing.assert_close(output.rewards, pooled @ weight + bias, rtol=1e-4, atol=1e-4)


def test_steering_by_multiplication_equals_a_scaled_head() -> None:
    model = sarm()
    with torch.no_grad():
        latents = model(IDS, LAST).features
        assert latents is not None
        latent = int(latents[0].abs().argmax())
        model.edits = {latent: Edit("*", 3.0)}
        steered = model(IDS, LAST).rewards
        model.edits = {}
        model.score.weight[0, latent] *= 3.0
        torch.testing.assert_close(steered, model(IDS, LAST).rewards)


def test_head_stays_in_float32_under_half_precision_states() -> None:
    model = sarm()
    model.to(torch.bfloat16)
    model.score.to(torch.float32)
    assert model(IDS, LAST).rewards.dtype == torch.float32
