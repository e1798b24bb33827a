"""LDL-Reward-Gemma: a base decoder whose two heads lie beside it as `regression_layer.pt` and `gating_layer.pt`.

Both files hold tensors alone and are read with `weights_only`. A converted folder may have them in its safetensors instead, as
`regression_layer.network.*` and `gating_layer.network.*`. Tested against `LDLRewardModel27B` of rewardbench 0.1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from sarm.checkpoints.reward_models.head_tensors import HeadTensors, outputs_of
from sarm.checkpoints.tensors import read_tensor_file
from sarm.job import UsageProblem
from sarm.reward.baselines import LDL_BINS, LabelDistributionRewardModel

HEADS = ("regression_layer", "gating_layer")


def ldl_side_files(folder: Path) -> dict[str, Tensor]:
    """Tensors of the two head files, prefixed with the file's name; empty where there are none."""
    return {
        f"{head}.{name}": tensor
        for head in HEADS
        if (folder / f"{head}.pt").exists()
        for name, tensor in read_tensor_file(folder / f"{head}.pt").items()
    }


def build_ldl(raw: Mapping[str, Any], backbone: PreTrainedModel, heads: HeadTensors, *, hidden_size: int) -> LabelDistributionRewardModel:
    """The model with its heads filled. Raises UsageProblem where the heads do not fit each other."""
    regression = heads.perceptron("regression_layer.network", inputs=hidden_size, activation=nn.LeakyReLU)
    gate = heads.perceptron("gating_layer.network", inputs=hidden_size, activation=nn.LeakyReLU)
    levels, objectives = outputs_of(regression), outputs_of(gate)
    if levels != objectives * LDL_BINS:
        raise UsageProblem(f"{heads.what}: {levels} outputs of 'regression_layer' are not {objectives} objectives x {LDL_BINS} bins")
    return LabelDistributionRewardModel(
        backbone,
        regression=regression,
        gate=gate,
        softmax=bool(raw.get("softmax", False)),
        temperature=float(raw.get("temperature", 1.0)),
    )
