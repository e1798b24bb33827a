"""ArmoRM and QRM: `regression_layer`, `reward_transform_matrix` and a gating network beside a whole decoder.

ArmoRM's gate is linear layers with ReLU between them. QRM's (both Llama 3 variants) has no biases inside and, after each ReLU, a
batch norm; which of the two a checkpoint has is read from its tensors. Tested against `LlamaForRewardModelWithGating3` and
`...31` of rewardbench 0.1.4, and for ArmoRM against a public copy of its hub class `LlamaForRewardModelWithGating`
(tests/fixtures/make_baseline_fixtures.py). Untested: QRM-v2, whose class lies on the hub alone; by its card it has the same
outputs with 5 objectives, so the same layout is assumed, with sizes from the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from sarm.checkpoints.loading import without_weights
from sarm.checkpoints.reward_models.head_tensors import HeadTensors
from sarm.job import UsageProblem
from sarm.reward.baselines import GatedRewardModel, PromptGate

MARK = "reward_transform_matrix"
DEFAULT_TEMPERATURE = 10.0


def build_gated(raw: Mapping[str, Any], backbone: PreTrainedModel, heads: HeadTensors, *, hidden_size: int) -> GatedRewardModel:
    """The model with its heads filled. Raises UsageProblem where sizes disagree with each other or with the config."""
    transform = heads.take(MARK, None, None)
    objectives = len(transform)
    regression = heads.take("regression_layer.weight", None, hidden_size)
    quantiles = int(raw.get("num_quantiles", 1))
    if transform.shape[1] != objectives or len(regression) != objectives * quantiles:
        raise UsageProblem(
            f"{heads.what}: {len(regression)} rows of 'regression_layer.weight' are not {objectives} objectives x {quantiles} quantiles; "
            "correct num_quantiles in config.json"
        )
    if int(raw.get("num_objectives", objectives)) != objectives:
        raise UsageProblem(f"{heads.what}: config.json says {raw['num_objectives']} objectives, the tensors have {objectives}")
    layers = _gate_layers(heads, hidden_size)
    with without_weights():
        gate = PromptGate(layers, temperature=float(raw.get("gating_temperature", DEFAULT_TEMPERATURE)))
        model = GatedRewardModel(backbone, gate, hidden_size=hidden_size, objectives=objectives, quantiles=quantiles)
    # The published product is rewards @ matrix, a linear layer's is weight @ rewards.
    model.transform.weight = nn.Parameter(transform.T.contiguous())
    model.regression.weight = nn.Parameter(regression)
    gate.logit_scale = nn.Parameter(heads.take("gating.logit_scale", 1))
    return model


def _gate_layers(heads: HeadTensors, hidden_size: int) -> list[nn.Module]:
    numbers = heads.numbers("gating.layers")
    normed = [number for number in numbers if heads.has(f"gating.layers.{number}.running_mean")]
    if not normed:
        return heads.perceptron("gating.layers", inputs=hidden_size, activation=nn.ReLU)
    layers: list[nn.Module] = []
    width = hidden_size
    for number in numbers:
        if number in normed:
            layers += [nn.ReLU(), heads.batch_norm(f"gating.layers.{number}", width=width)]
        else:
            # A layer before a batch norm has no bias.
            layer = heads.linear(f"gating.layers.{number}", inputs=width, bias=number == numbers[-1])
            width = layer.out_features
            layers.append(layer)
    return layers
