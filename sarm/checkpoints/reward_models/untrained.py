"""A reward model before its first training step: weights from disk where there are some, random ones where that is the design."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.loading import CPU, without_weights
from sarm.checkpoints.saes.files import load_sae
from sarm.config.train import RewardTrainingConfig
from sarm.job import UsageProblem
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel
from sarm.sae.model import TopKSAE

INIT_STD = 0.02


def untrained_reward_model(
    config: RewardTrainingConfig, inputs: Mapping[str, Path], *, dtype: torch.dtype, device: torch.device = CPU
) -> RewardModel:
    """The model before its first step, on `device`: backbone and encoder in `dtype`, the head in float32.

    Inputs: `backbone`, and `sae` where the encoder is pretrained. Raises UsageProblem when the two do not belong together.
    """
    backbone = load_truncated_backbone(
        inputs["backbone"], layer=config.layer, dtype=dtype, keep_final_norm=config.encoder == "none", device=device
    )
    generator = torch.Generator().manual_seed(config.seed)
    model = _with_encoder(backbone, config, inputs, generator=generator, dtype=dtype)
    # Drawn on the CPU, as is all that is random here: the numbers must not hang on the device.
    score = model.score.to_empty(device="cpu")
    if config.head_init == "zeros":
        score.weight.data.zero_()
    else:
        score.weight.data.normal_(0, INIT_STD, generator=generator)
    return model.to(device)


def _with_encoder(
    backbone: PreTrainedModel,
    config: RewardTrainingConfig,
    inputs: Mapping[str, Path],
    *,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> RewardModel:
    """The model whose head has no values yet."""
    width = backbone.config.hidden_size
    if config.encoder == "linear":
        with without_weights():
            linear = LinearEncoderRewardModel(backbone, hidden_size=width, n_latents=config.n_latents)
        encoder = linear.untrained_sae_encoder.to_empty(device="cpu")
        # Default Llama initialisation: normal with 0.02, bias 0. Source: LlamaBaseline.
        encoder.weight.data.normal_(0, INIT_STD, generator=generator)
        encoder.bias.data.zero_()
        encoder.to(dtype)
        return linear
    if config.encoder == "none":
        with without_weights():
            return DenseRewardModel(backbone, hidden_size=width)
    if config.encoder == "random_sae":
        sae = TopKSAE.fresh(hidden_size=width, n_latents=config.n_latents, k=config.k, generator=generator)
        sae.normalize_decoder()
    else:
        sae, geometry = load_sae(inputs["sae"], dtype, device=backbone.device)
        if geometry.hidden_size != width or geometry.layer != config.layer:
            raise UsageProblem(
                f"the SAE is of layer {geometry.layer} and width {geometry.hidden_size}, "
                f"the reward model of layer {config.layer} and width {width}; train an SAE for this layer"
            )
    with without_weights():
        return SARM(backbone, sae.to(dtype), latents=config.latents)
