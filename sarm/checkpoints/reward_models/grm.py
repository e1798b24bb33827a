"""GRM's `*-sftreg` checkpoints: a whole decoder with a value head `v_head.summary`, one linear layer or several with ReLU.

Tested against `GRewardModel` of rewardbench 0.1.4. `GRM-*-rewardmodel-ft` are plain sequence classifiers and not this layout.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from sarm.checkpoints.loading import without_weights
from sarm.checkpoints.reward_models.head_tensors import HeadTensors
from sarm.job import UsageProblem
from sarm.reward.baselines import ValueHeadRewardModel

PREFIX = "v_head.summary"


def build_grm(backbone: PreTrainedModel, heads: HeadTensors, *, hidden_size: int) -> ValueHeadRewardModel:
    """The model with its head filled. Raises UsageProblem where the head does not end in one value."""
    if heads.has(f"{PREFIX}.weight"):
        layers: list[nn.Module] = [heads.linear(PREFIX, inputs=hidden_size)]
    else:
        layers = heads.perceptron(PREFIX, inputs=hidden_size, activation=nn.ReLU)
    last = layers.pop()
    if not isinstance(last, nn.Linear) or last.out_features != 1:
        raise UsageProblem(f"{heads.what}: the value head ends in more than one value; a reward model has exactly one")
    with without_weights():
        model = ValueHeadRewardModel(backbone, layers, features=last.in_features)
    model.score.weight = last.weight
    model.score_bias = last.bias
    return model
