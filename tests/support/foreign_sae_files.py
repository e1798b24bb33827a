"""Small random SAEs in the files of other projects, the same numbers wherever they are made.

Imported by the tests and, in another environment, by `fixtures/make_sae_fixtures.py`: numpy, torch and safetensors alone.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from sarm.sae.model import TopKSAE

HIDDEN, LATENTS, K = 8, 24, 4
SAE_LENS: dict[str, dict[str, Any]] = {
    "standard": {"architecture": "standard"},
    "standard-layer-norm": {"architecture": "standard", "apply_b_dec_to_input": False, "normalize_activations": "layer_norm"},
    "topk": {"architecture": "topk", "k": K},
    "topk-rescaled": {
        "architecture": "topk",
        "k": K,
        "rescale_acts_by_decoder_norm": True,
        "normalize_activations": "constant_norm_rescale",
    },
    "jumprelu": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
}
# The format before 6.0, where TopK was an activation function.
SAE_LENS_OLD = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "normalize_activations": "none"}
DICTIONARIES = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")
DATASET_WISE = {"norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 5.5, "out": 6.5}}
LLAMA_SCOPE: dict[str, dict[str, Any]] = {
    "jumprelu": {"act_fn": "jumprelu", "jump_relu_threshold": 0.4, "apply_decoder_bias_to_pre_encoder": False, **DATASET_WISE},
    "topk-by-threshold": {"act_fn": "topk", "top_k": K, "jump_relu_threshold": 0.7, **DATASET_WISE},
    "topk": {"act_fn": "topk", "top_k": K, "norm_activation": "token-wise"},
    "relu": {"act_fn": "relu", "norm_activation": "none", "sparsity_include_decoder_norm": False},
}


def drawn(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal values in float32, by name."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape) * scale
    return np.ascontiguousarray(values.astype(np.float32))


def inputs() -> torch.Tensor:
    """Hidden states `[6, HIDDEN]` of different norms and with a mean."""
    return torch.from_numpy(drawn("inputs", 6, HIDDEN) * np.float32([[0.5], [1], [1.5], [2], [2.5], [3]]) + np.float32(0.3))


def arrays() -> dict[str, np.ndarray]:
    """Encoder `[LATENTS, HIDDEN]`, decoder `[HIDDEN, LATENTS]` with columns of different length, biases, thresholds."""
    return {
        "encoder": drawn("encoder", LATENTS, HIDDEN, scale=0.5),
        "decoder": drawn("decoder", HIDDEN, LATENTS, scale=0.4),
        "latent_bias": drawn("latent_bias", LATENTS, scale=0.3),
        "pre_bias": drawn("pre_bias", HIDDEN, scale=0.3),
        "threshold": np.abs(drawn("threshold", LATENTS, scale=0.5)),
    }


def tensors() -> dict[str, torch.Tensor]:
    """`arrays` as tensors."""
    return {name: torch.from_numpy(value) for name, value in arrays().items()}


def write_sae_lens(folder: Path, name: str) -> Path:
    """A SAELens folder of one of the kinds above, or `topk-before-6`."""
    folder.mkdir(parents=True, exist_ok=True)
    common = {"d_in": HIDDEN, "d_sae": LATENTS, "dtype": "float32", "device": "cpu"}
    if name == "topk-before-6":
        config = {**common, **SAE_LENS_OLD, "hook_name": "blocks.3.hook_resid_pre", "model_name": "tiny", "apply_b_dec_to_input": True}
    else:
        metadata = {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post", "model_name": "tiny"}
        defaults = {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
        config = {**common, **defaults, **SAE_LENS[name], "metadata": metadata}
    ours = tensors()
    theirs = {"W_enc": ours["encoder"].T, "W_dec": ours["decoder"].T, "b_enc": ours["latent_bias"], "b_dec": ours["pre_bias"]}
    if name == "jumprelu":
        theirs["threshold"] = ours["threshold"]
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in theirs.items()}, folder / "sae_weights.safetensors")
    return folder


def write_sparsify(folder: Path) -> Path:
    """A sparsify folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = tensors()
    theirs = {"encoder.weight": ours["encoder"], "encoder.bias": ours["latent_bias"], "W_dec": ours["decoder"].T, "b_dec": ours["pre_bias"]}
    config = {"activation": "topk", "expansion_factor": 3, "num_latents": 0, "k": K, "d_in": HIDDEN, "normalize_decoder": True}
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in theirs.items()}, folder / "sae.safetensors")
    return folder


def write_dictionary(folder: Path, name: str) -> Path:
    """A dictionary_learning folder of one class."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = tensors()
    linear = {"encoder.weight": ours["encoder"], "encoder.bias": ours["latent_bias"], "decoder.weight": ours["decoder"]}
    direct = {"W_enc": ours["encoder"].T, "W_dec": ours["decoder"].T, "b_enc": ours["latent_bias"], "b_dec": ours["pre_bias"]}
    selected = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.6)}
    theirs = {
        "AutoEncoder": {**linear, "bias": ours["pre_bias"]},
        "AutoEncoderNew": {**linear, "decoder.bias": ours["pre_bias"]},
        "AutoEncoderTopK": {**linear, **selected, "b_dec": ours["pre_bias"]},
        "BatchTopKSAE": {**linear, **selected, "b_dec": ours["pre_bias"]},
        "MatryoshkaBatchTopKSAE": {**direct, **selected, "group_sizes": torch.tensor([10, 14])},
        "JumpReluAutoEncoder": {**direct, "threshold": ours["threshold"]},
    }[name]
    trainer = {"dict_class": name, "layer": 3, "lm_name": "tiny", "k": K, "submodule_name": "resid_post_layer_3"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 64}}))
    torch.save({key: value.contiguous() for key, value in theirs.items()}, folder / "ae.pt")
    return folder


def write_llama_scope(folder: Path, name: str) -> Path:
    """A Llama Scope folder of one of the kinds above."""
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    ours = tensors()
    theirs = {
        "encoder.weight": ours["encoder"],
        "encoder.bias": ours["latent_bias"],
        "decoder.weight": ours["decoder"],
        "decoder.bias": ours["pre_bias"],
    }
    hook = "blocks.3.hook_resid_post"
    sizes = {"d_model": HIDDEN, "d_sae": LATENTS, "expansion_factor": 3}
    (folder / "hyperparams.json").write_text(json.dumps({**sizes, "hook_point_in": hook, "hook_point_out": hook, **LLAMA_SCOPE[name]}))
    save_file(theirs, folder / "checkpoints" / "final.safetensors")
    return folder


def write_gemma_scope(folder: Path) -> Path:
    """A Gemma Scope file in a folder of the release's shape below `folder`."""
    place = folder / "layer_3" / "width_16k" / "average_l0_5"
    place.mkdir(parents=True, exist_ok=True)
    ours = arrays()
    theirs = {"W_enc": ours["encoder"].T, "W_dec": ours["decoder"].T, "b_enc": ours["latent_bias"], "b_dec": ours["pre_bias"]}
    np.savez(place / "params.npz", threshold=ours["threshold"], **theirs)
    return place


def every_layout(folder: Path) -> dict[str, Path]:
    """All of the above, by name."""
    places = {f"sae_lens-{name}": write_sae_lens(folder / f"lens-{name}", name) for name in (*SAE_LENS, "topk-before-6")}
    places["sparsify-topk"] = write_sparsify(folder / "layers.3")
    places.update({f"dictionary_learning-{name}": write_dictionary(folder / name, name) for name in DICTIONARIES})
    places.update({f"llama_scope-{name}": write_llama_scope(folder / f"llama-{name}", name) for name in LLAMA_SCOPE})
    places["gemma_scope-jumprelu"] = write_gemma_scope(folder / "gemma")
    return places


def ours(*, standardizes: bool = False) -> TopKSAE:
    """A TopK SAE of our own with the fixtures' tensors."""
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=LATENTS, k=K, standardizes=standardizes)
    parts = tensors()
    names = {"encoder": "encoder.weight", "decoder": "decoder.weight", "pre_bias": "pre_bias", "latent_bias": "latent_bias"}
    sae.load_state_dict({theirs: parts[key] for key, theirs in names.items()})
    return sae
