"""The truncated decoder equals the full one at its layer."""

from __future__ import annotations

import pytest
import torch
from families import CONFIGS
from tiny import causal_lm, llama_config

from sarm.backbone.decoder import hidden_states, truncated_backbone, truncated_config

ROWS = [[0, 9, 10, 11, 4], [0, 12, 13, 4], [0, 14, 4]]
PAD = 5
IDS = torch.tensor([row + [PAD] * (5 - len(row)) for row in ROWS])


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
