"""Llama Scope (lm_saes of late 2024): `hyperparams.json` + `checkpoints/final.safetensors`, encoder and decoder as linear layers.

Converted as its own loader opens them: the dataset-wise scale goes into the biases, so that raw hidden states go in; decoder norms
go into the encoder where sparsity counted them; a TopK with a `jump_relu_threshold` above 0 is a JumpReLU whose threshold counts
in that folded scale (so the loader says; it renames the activation and forgets to exchange the function). Tested against lm_saes
at f7315179 (December 2024). SAELens 6.54 leaves the decoder norms out of its copy of this loader, so its latents differ from these
where the norms are not 1 (OpenMOSS/Llamascopium#128).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sarm.checkpoints.config_files import read_settings
from sarm.checkpoints.saes.imported import ImportedSAE, Parts, encoder_from, known_tensors, layer_of_hook
from sarm.checkpoints.settings_keys import DECIDED, NUMBER, OBJECT, TEXT, TRUTH, WHOLE, Keys, check_keys, check_sizes, key_names
from sarm.checkpoints.tensors import read_tensor_file
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.sae.sparse_encoder import Activation, Normalization

WEIGHTS = ("sae_weights.safetensors", "checkpoints/pruned.safetensors", "checkpoints/final.safetensors")
NORMALIZATION: dict[str, Normalization] = {"none": "none", "dataset-wise": "none", "token-wise": "norm-sqrt-d"}

KEYS = Keys(
    read={
        "act_fn": TEXT,
        "top_k": WHOLE,
        "jump_relu_threshold": NUMBER,
        "norm_activation": TEXT,
        "dataset_average_activation_norm": OBJECT,
        "use_decoder_bias": DECIDED,
        "apply_decoder_bias_to_pre_encoder": DECIDED,
        "sparsity_include_decoder_norm": DECIDED,
        "use_glu_encoder": TRUTH,
        "hook_point_in": TEXT,
        "hook_point_out": TEXT,
        "d_model": WHOLE,
        "d_sae": WHOLE,
    },
    changing={"sae_type": ("sae",)},
    harmless=key_names(
        "sae_pretrained_name_or_path strict_loading use_triton_kernel tp_size ddp_size lp p",
        "sparsity_threshold_for_triton_spmm_kernel sparsity_threshold_for_csr decoder_exactly_unit_norm bias_init_method",
        "use_ghost_grads remove_gradient_parallel_to_decoder_directions init_decoder_norm init_encoder_norm",
        "init_encoder_with_decoder_transpose k_warmup_steps initial_k use_batch_norm_mse l1_coefficient_warmup_steps",
        "jumprelu_threshold_window force_unit_decoder_norm promote_act_fn_dtype",
    ),
)


def read_llama_scope(folder: Path) -> ImportedSAE:
    """The SAE of a folder. Raises UsageProblem for GLU encoders, batch-wise scales and transcoders."""
    what = folder.name
    raw, settings = read_settings(folder / "hyperparams.json"), f"{what}/hyperparams.json"
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise EnvironmentProblem(f"{what}: none of {', '.join(WEIGHTS)} is there; fetch the SAE again")
    check_keys(raw, KEYS, settings)
    _refuse_unknown(raw, settings)
    tensors = read_tensor_file(path)
    known_tensors(tensors, {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}, layout="Llama Scope", file=path)
    activation, k, threshold = _activation(raw, settings)
    parts = Parts(
        encoder=tensors.get("encoder.weight"),
        decoder=tensors.get("decoder.weight"),
        pre_bias=tensors["decoder.bias"] if "decoder.bias" in tensors else _no_bias(raw),
        latent_bias=tensors.get("encoder.bias"),
        threshold=torch.full((len(tensors.get("encoder.bias", ())),), threshold) if activation == "jumprelu" else None,
    )
    sae = encoder_from(
        parts,
        activation=activation,
        k=k,
        normalization=NORMALIZATION[raw.get("norm_activation", "token-wise")],
        subtracts_bias=raw.get("use_decoder_bias", True) and raw.get("apply_decoder_bias_to_pre_encoder", True),
        what=settings,
        weights=f"{what}/{path.name}",
    )
    check_sizes(raw, sizes={"d_model": sae.hidden_size, "d_sae": sae.n_latents}, where=settings)
    with torch.no_grad():
        if raw.get("norm_activation") == "dataset-wise":
            scale_in, scale_out = (sae.hidden_size**0.5 / raw["dataset_average_activation_norm"][side] for side in ("in", "out"))
            sae.latent_bias.div_(scale_in)
            sae.pre_bias.div_(scale_out)
            sae.decoder.weight.mul_(scale_in / scale_out)
    if raw.get("sparsity_include_decoder_norm", True):
        sae.fold_decoder_norms()
    return ImportedSAE(sae=sae, layer=layer_of_hook(str(raw.get("hook_point_in", "")), settings), layout="Llama Scope")


def _no_bias(raw: Mapping[str, Any]) -> torch.Tensor | None:
    return None if raw.get("use_decoder_bias", True) else torch.zeros(int(raw["d_model"]))


def _activation(raw: Mapping[str, Any], what: str) -> tuple[Activation, int, float]:
    name, threshold = str(raw.get("act_fn", "relu")).lower(), float(raw.get("jump_relu_threshold", 0.0))
    if name == "jumprelu" or (name == "topk" and threshold > 0):
        if threshold < 0:
            raise UsageProblem(f"{what}: jump_relu_threshold = {threshold} lies below 0, where latents would be negative")
        return "jumprelu", 0, threshold
    if name == "topk":
        return "relu_topk", int(raw["top_k"]), 0.0
    if name == "relu":
        return "relu", 0, 0.0
    raise UsageProblem(f"{what}: act_fn {name!r} is not one of relu, topk, jumprelu; it cannot be converted")


def _refuse_unknown(raw: Mapping[str, Any], what: str) -> None:
    if raw.get("use_glu_encoder"):
        raise UsageProblem(f"{what}: a GLU encoder cannot be converted")
    normalization = raw.get("norm_activation", "token-wise")
    if normalization not in NORMALIZATION:
        raise UsageProblem(f"{what}: norm_activation = {normalization!r} depends on the whole batch and cannot be converted")
    if normalization == "dataset-wise" and not raw.get("dataset_average_activation_norm"):
        raise UsageProblem(f"{what}: dataset-wise normalisation without dataset_average_activation_norm; its scale is lost")
    if raw.get("hook_point_out", raw.get("hook_point_in")) != raw.get("hook_point_in"):
        raise UsageProblem(f"{what}: reads {raw['hook_point_in']!r} and predicts {raw['hook_point_out']!r}: a transcoder, not an SAE")
