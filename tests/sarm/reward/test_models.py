"""The truncated decoder equals the full one at its layer, and the reward models obey their algebra."""

from __future__ import annotations

import pytest
import torch
from families import CONFIGS
from tiny import HIDDEN, causal_lm, llama_config

from sarm.backbone.decoder import hidden_states, truncated_backbone, truncated_config
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


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_truncated_hidden_states_equal_the_full_models(name: str) -> None:
    full = causal_lm(CONFIGS[name])
    with torch.no_grad():
        expected = full(input_ids=IDS, output_hidden_states=True).hidden_states
        for layer in (1, 3, 4):
            cut = truncated_backbone(CONFIGS[name], layer).eval()
            assert len(cut.layers) == layer
            cut.load_state_dict({key: value for key, value in full.model.state_dict().items() if key in cut.state_dict()})
            states = hidden_states(cut, IDS, list(range(layer + 1)))
            for at in range(min(layer, 3) + 1):
                torch.testing.assert_close(states[at], expected[at])
            last = cut(input_ids=IDS, use_cache=False).last_hidden_state
            assert torch.equal(last, states[layer]), "the final norm must not be applied"
        # What transformers calls the last hidden state has passed the final norm.
        torch.testing.assert_close(full.model.norm(states[4]), expected[4])


def test_kept_final_norm_is_applied() -> None:
    torch.manual_seed(0)
    model = truncated_backbone(llama_config(), 2, keep_final_norm=True).eval()
    torch.nn.init.normal_(model.norm.weight)
    with torch.no_grad():
        raw = hidden_states(model, IDS, [2])[2]
        torch.testing.assert_close(model(input_ids=IDS).last_hidden_state, model.norm(raw))


@pytest.mark.parametrize("layer", [0, 5])
def test_layer_beyond_the_model_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer {layer} does not exist: the model has 4 blocks; choose 1 to 4"):
        truncated_backbone(llama_config(), layer)


def test_hidden_states_beyond_the_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 3 does not exist: the model was cut to 2 blocks"):
        hidden_states(truncated_backbone(llama_config(), 2), IDS, [3])


def test_layer_types_are_cut_with_the_layers() -> None:
    cut = truncated_config(CONFIGS["gemma2"], 3)
    assert len(cut.layer_types) == cut.num_hidden_layers == 3
    assert CONFIGS["gemma2"].num_hidden_layers == 4


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
