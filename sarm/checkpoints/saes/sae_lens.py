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
from sarm.checkpoints.settings_keys import (
    DECIDED,
    OBJECT,
    TEXT,
    TEXT_OR_TRUTH,
    TRUTH,
    WHOLE,
    Keys,
    agreed,
    check_keys,
    check_kind,
    check_sizes,
    key_names,
)
from sarm.checkpoints.tensors import read_tensor_file, write_tensor_file
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import Activation, Normalization, SparseEncoder

NORMALIZATION: dict[str, Normalization] = {"none": "none", "layer_norm": "layer-norm", "constant_norm_rescale": "norm-sqrt-d"}
ACTIVATION: dict[str, Activation] = {"standard": "relu", "topk": "relu_topk", "jumprelu": "jumprelu"}
SAE_LENS_VERSION = "6.54.12"
KEYS = Keys(
    read={
        "architecture": TEXT,
        "d_in": WHOLE,
        "d_sae": WHOLE,
        "d_out": WHOLE,
        "apply_b_dec_to_input": DECIDED,
        "rescale_acts_by_decoder_norm": TRUTH,
        "normalize_activations": TEXT_OR_TRUTH,
        "reshape_activations": TEXT,
        "activation_fn": TEXT,
        "activation_fn_str": TEXT,
        "activation_fn_kwargs": OBJECT,
        "finetuning_scaling_factor": TRUTH,
        "hook_name": TEXT,
        "hook_point": TEXT,
        "metadata": OBJECT,
    },
    changing={},
    # What SAEs say of their training, and what the format before 6.0 said of it among the rest.
    harmless=key_names(
        "k model_class_name hook_point_layer model_from_pretrained_kwargs model_kwargs seqpos_slice exclude_special_tokens",
        "sequence_separator_token disable_concat_sequences is_dataset_tokenized use_cached_activations cached_activations_path",
        "from_pretrained_path n_batches_in_buffer store_batch_size store_batch_size_prompts act_store_device autocast autocast_lm",
        "autocast_sae compile_llm compile_sae verbose llm_compilation_mode sae_compilation_mode logger n_restart_cycles",
        "dead_feature_estimation_method feature_sampling_window feature_sampling_method feature_reinit_scale resample_batches",
        "n_eval_batches eval_batch_size_prompts output_path save_final_checkpoint resume l1_warm_up_steps lp_norm l0_coefficient",
        "l0_warm_up_steps pre_act_loss_coefficient aux_loss_coefficient use_ghost_grads noise_scale mse_loss_normalization",
        "scale_sparsity_penalty_by_decoder_norm use_sparse_activations normalize_sae_decoder decoder_orthogonal_init",
        "decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm init_encoder_as_decoder_transpose b_dec_init_method",
        "tokens_per_buffer finetuning_method finetuning_tokens jumprelu_init_threshold jumprelu_bandwidth",
        "jumprelu_sparsity_loss_mode jumprelu_tanh_scale topk_threshold_lr log_activations_store_to_wandb",
        "log_optimizer_state_to_wandb eval_every_n_wandb_logs",
    ),
)
# Of a TopK that is an activation function; what follows it is ReLU unless it says so.
DETAILS = Keys(read={"k": WHOLE}, changing={"postact_fn": ("relu", "ReLU")}, harmless=frozenset())


def read_sae_lens(folder: Path) -> ImportedSAE:
    """An SAE saved by `sae.save_model`. Raises UsageProblem for what cannot be converted exactly."""
    what = folder.name
    raw = read_settings(folder / "cfg.json")
    check_keys(raw, KEYS, f"{what}/cfg.json")
    file = folder / "sae_weights.safetensors"
    tensors = read_tensor_file(file)
    architecture, k = _architecture(raw, f"{what}/cfg.json")
    if architecture not in ACTIVATION:
        raise UsageProblem(f"{what}/cfg.json: architecture {architecture!r} is not one of {', '.join(ACTIVATION)}; it cannot be converted")
    _refuse_lost_scales(raw, tensors, what)
    names = {"W_enc", "W_dec", "b_enc", "b_dec", *(("threshold",) if architecture == "jumprelu" else ())}
    known_tensors(tensors, names, layout="SAELens", file=file)
    sae = encoder_from(
        _parts(tensors),
        activation=ACTIVATION[architecture],
        k=k,
        normalization=NORMALIZATION[_normalization(raw)],
        subtracts_bias=raw.get("apply_b_dec_to_input", True),
        what=f"{what}/cfg.json",
        weights=f"{what}/{file.name}",
    )
    sizes = {"d_in": sae.hidden_size, "d_out": sae.hidden_size, "d_sae": sae.n_latents}
    check_sizes(raw, sizes=sizes, where=f"{what}/cfg.json")
    if architecture == "topk" and raw.get("rescale_acts_by_decoder_norm"):
        sae.fold_decoder_norms()
    hook = str((raw.get("metadata") or {}).get("hook_name") or raw.get("hook_name") or raw.get("hook_point") or "")
    return ImportedSAE(sae=sae, layer=layer_of_hook(hook, f"{what}/cfg.json"), layout="SAELens")


def _parts(tensors: Mapping[str, Tensor]) -> Parts:
    return Parts(
        encoder=transposed(tensors.get("W_enc")),
        decoder=transposed(tensors.get("W_dec")),
        pre_bias=tensors.get("b_dec"),
        latent_bias=tensors.get("b_enc"),
        threshold=tensors.get("threshold"),
    )


def _architecture(raw: Mapping[str, Any], where: str) -> tuple[str, int]:
    architecture = str(raw.get("architecture") or "standard")
    function = str(agreed(raw, "activation_fn_str", "activation_fn", where=where) or "relu")
    details = raw.get("activation_fn_kwargs") or {}
    # The format before 6.0: TopK was an activation function of the standard architecture, and was read as ReLU more than once.
    if architecture == "topk" or (architecture == "standard" and function == "topk"):
        check_kind(raw, "k", WHOLE, where)
        check_keys(details, DETAILS, where, within="activation_fn_kwargs")
        stated = {"k": raw.get("k") or None, "activation_fn_kwargs.k": details.get("k") or None}
        k = agreed(stated, *stated, where=where)
        return "topk", int(k) if isinstance(k, int | float) else 0
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
