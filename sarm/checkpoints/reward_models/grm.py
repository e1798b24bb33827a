"""GRM's `*-sftreg` checkpoints: a whole decoder with a value head `v_head.summary`, one linear layer or several with ReLU.

Tested against `GRewardModel` of rewardbench 0.1.4. `GRM-*-rewardmodel-ft` are plain sequence classifiers and not this layout.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from sarm.checkpoints.reward_models.head_tensors import HeadTensors
from sarm.job import UsageProblem
from sarm.reward.baselines import ValueHeadRewardModel

PREFIX = "v_head.summary"


def build_grm(backbone: PreTrainedModel, heads: HeadTensors, *, hidden_size: int) -> ValueHeadRewardModel:
    """The model with its head filled. Raises UsageProblem where the head does not end in one value."""
    # The language-model head kept for the regularisation of the training; the reward does not use it.
    if heads.has("lm_head.weight"):
        heads.take("lm_head.weight", None, hidden_size)
    if heads.has(f"{PREFIX}.weight"):
        layers: list[nn.Module] = [heads.linear(PREFIX, inputs=hidden_size)]
    else:
        layers = heads.perceptron(PREFIX, inputs=hidden_size, activation=nn.ReLU)
    last = layers.pop()
    if not isinstance(last, nn.Linear) or last.out_features != 1:
        raise UsageProblem(f"{heads.what}: the value head ends in more than one value; a reward model has exactly one")
    model = ValueHeadRewardModel(backbone, layers, features=last.in_features)
    with torch.no_grad():
        model.score.weight.copy_(last.weight)
        model.score_bias.copy_(last.bias)
    return model
