"""SAELens: `cfg.json` + `sae_weights.safetensors` (`W_enc` `[d_in, d_sae]`, `W_dec` `[d_sae, d_in]`, `b_enc`, `b_dec`, `threshold`).

Architectures `standard`, `topk`, `jumprelu` of the 6.x format and of the one before it, where top-k was an activation function.
Its TopK sets negative values to 0; `rescale_acts_by_decoder_norm` is folded into the encoder. Tested against sae_lens 6.54.12.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sarm.checkpoints.config_files import read_settings
from sarm.checkpoints.saes.imported import ImportedSAE, Parts, encoder_from, known_tensors, layer_of_hook, transposed
from sarm.checkpoints.tensors import read_tensor_file, write_tensor_file
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import Activation, Normalization, SparseEncoder

NORMALIZATION: dict[str, Normalization] = {"none": "none", "layer_norm": "layer-norm", "constant_norm_rescale": "norm-sqrt-d"}
ACTIVATION: dict[str, Activation] = {"standard": "relu", "topk": "relu_topk", "jumprelu": "jumprelu"}
SAE_LENS_VERSION = "6.54.12"


def read_sae_lens(folder: Path) -> ImportedSAE:
    """An SAE saved by `sae.save_model`. Raises UsageProblem for what cannot be converted exactly."""
    what = folder.name
    raw = read_settings(folder / "cfg.json")
    file = folder / "sae_weights.safetensors"
    tensors = read_tensor_file(file)
    architecture, k = _architecture(raw)
    if architecture not in ACTIVATION:
        raise UsageProblem(f"{what}/cfg.json: architecture {architecture!r} is not one of {', '.join(ACTIVATION)}; it cannot be converted")
    _refuse_lost_scales(raw, tensors, what)
    names = {"W_enc", "W_dec", "b_enc", "b_dec", *(("threshold",) if architecture == "jumprelu" else ())}
    known_tensors(tensors, names, layout="SAELens", file=file)
    parts = Parts(
        encoder=transposed(tensors.get("W_enc")),
        decoder=transposed(tensors.get("W_dec")),
        pre_bias=tensors.get("b_dec"),
        latent_bias=tensors.get("b_enc"),
        threshold=tensors.get("threshold"),
    )
    sae = encoder_from(
        parts,
        activation=ACTIVATION[architecture],
        k=k,
        normalization=NORMALIZATION[_normalization(raw)],
        subtracts_bias=bool(raw.get("apply_b_dec_to_input", True)),
        what=f"{what}/cfg.json",
        weights=f"{what}/{file.name}",
    )
    if architecture == "topk" and raw.get("rescale_acts_by_decoder_norm"):
        sae.fold_decoder_norms()
    hook = str((raw.get("metadata") or {}).get("hook_name") or raw.get("hook_name") or raw.get("hook_point") or "")
    return ImportedSAE(sae=sae, layer=layer_of_hook(hook, f"{what}/cfg.json"), layout="SAELens")


def _architecture(raw: Mapping[str, Any]) -> tuple[str, int]:
    architecture = str(raw.get("architecture", "standard"))
    if architecture == "topk":
        return architecture, int(raw.get("k") or raw.get("activation_fn_kwargs", {}).get("k", 0))
    # The format before 6.0: TopK was an activation function of the standard architecture, and was read as ReLU more than once.
    function = str(raw.get("activation_fn_str") or raw.get("activation_fn") or "relu")
    if architecture == "standard" and function == "topk":
        return "topk", int((raw.get("activation_fn_kwargs") or {}).get("k", 0))
    return (architecture if function == "relu" else f"{architecture} with {function}"), 0


def _normalization(raw: Mapping[str, Any]) -> str:
    value = raw.get("normalize_activations")
    if isinstance(value, bool):
        return "expected_average_only_in" if value else "none"
    return str(value or "none")


def _refuse_lost_scales(raw: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> None:
    normalization = _normalization(raw)
    if normalization not in NORMALIZATION:
        raise UsageProblem(
            f"{what}/cfg.json: normalize_activations = {normalization!r} scales the input by numbers that the files do not hold; "
            "fold them in SAELens before saving (fold_activation_norm_scaling_factor, fold_activation_whitening)"
        )
    # Where the file holds the scales, they say themselves whether they do anything.
    if raw.get("finetuning_scaling_factor") and not tensors.keys() & {"scaling_factor", "finetuning_scaling_factor"}:
        raise UsageProblem(f"{what}/cfg.json: finetuning_scaling_factor is on and scales latents on decoding alone; it cannot be converted")
    if raw.get("reshape_activations", "none") != "none":
        shape = raw["reshape_activations"]
        raise UsageProblem(f"{what}/cfg.json: reshape_activations = {shape!r}; only SAEs of the residual stream can be used")


def export_sae_lens(folder: Path, sae: TopKSAE, *, layer: int, model_name: str) -> None:
    """Write an SAE of ours so that `sae_lens.SAE.load_from_disk` opens it and encodes prepared hidden states the same.

    Our standardisation has the epsilon 1e-6 where SAELens has 1e-5, so `layer_norm` is written and latents agree to about 1e-5;
    our TopK keeps negative values, SAELens sets them to 0: exact wherever k pre-activations are positive.
    """
    names: dict[Normalization, str] = {ours: theirs for theirs, ours in NORMALIZATION.items()}
    normalization = "layer_norm" if sae.standardizes else "none"
    config: dict[str, Any] = {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
    tensors = {"W_enc": sae.encoder.weight.T, "W_dec": sae.decoder.weight.T, "b_enc": sae.latent_bias, "b_dec": sae.pre_bias}
    if isinstance(sae, SparseEncoder):
        normalization = "layer_norm" if sae.normalization == "standardize" else names[sae.normalization]
        if sae.activation in ("jumprelu", "relu"):
            config = {"architecture": "jumprelu" if sae.activation == "jumprelu" else "standard"}
        if sae.activation == "jumprelu":
            tensors["threshold"] = sae.threshold
    config |= {
        "d_in": sae.hidden_size,
        "d_sae": sae.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtracts_bias if isinstance(sae, SparseEncoder) else True,
        "normalize_activations": normalization,
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAE_LENS_VERSION,
            "model_name": model_name,
            "hook_name": f"blocks.{layer - 1}.hook_resid_post",
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tensor_file(folder / "sae_weights.safetensors", {name: value.float() for name, value in tensors.items()})
