"""EleutherAI sparsify: `cfg.json` + `sae.safetensors` (`encoder.weight` `[M, d]`, `encoder.bias`, `W_dec` `[M, d]`, `b_dec`).

Its TopK is ReLU and then the k largest, on `x - b_dec`. Tested against eai-sparsify 1.3.3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sarm.checkpoints.config_files import read_settings
from sarm.checkpoints.saes.imported import ImportedSAE, Parts, encoder_from, known_tensors, layer_of_hook, transposed
from sarm.checkpoints.settings_keys import TEXT, TRUTH, WHOLE, Keys, check_keys, check_sizes, key_names
from sarm.checkpoints.tensors import read_tensor_file, write_tensor_file
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import SparseEncoder

KEYS = Keys(
    read={"activation": TEXT, "k": WHOLE, "d_in": WHOLE, "num_latents": WHOLE, "transcode": TRUTH, "skip_connection": TRUTH},
    changing={
        # Of the first releases: the k largest by absolute value, without ReLU.
        "signed": (),
        # Of the branch for cross-layer transcoders.
        "normalize_io": (),
        "coalesce_topk": ("none",),
        # Of forks.
        "architecture": ("topk",),
        "batch_topk": (),
        "embed_skip": (),
        "encoder_rank": (),
        "input_unit_norm": (),
        "jumprelu": (),
        "sample_topk": (),
    },
    harmless=key_names(
        "normalize_decoder multi_topk tp_output n_targets n_sources divide_cross_layer train_post_encoder per_source_tied",
        "secondary_target_tied topk_coalesced init_enc_as_dec_transpose jumprelu_init_threshold jumprelu_bandwidth",
        "jumprelu_target_l0",
    ),
)


def read_sparsify(folder: Path) -> ImportedSAE:
    """An SAE saved by `save_to_disk`; the layer comes from a folder named like the hook (`layers.15`).

    Raises UsageProblem for transcoders, skip connections, group-max and other keys that change what is computed.
    """
    what = folder.name
    raw = read_settings(folder / "cfg.json")
    check_keys(raw, KEYS, f"{what}/cfg.json")
    for setting in ("transcode", "skip_connection"):
        if raw.get(setting):
            raise UsageProblem(f"{what}/cfg.json: {setting} is on; it predicts other states than it reads, so it is no SAE")
    activation = str(raw.get("activation", "topk"))
    if activation != "topk":
        raise UsageProblem(f"{what}/cfg.json: activation {activation!r} cannot be converted; only topk can")
    file = folder / "sae.safetensors"
    tensors = read_tensor_file(file)
    known_tensors(tensors, {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}, layout="sparsify", file=file)
    parts = Parts(
        encoder=tensors.get("encoder.weight"),
        decoder=transposed(tensors.get("W_dec")),
        pre_bias=tensors.get("b_dec"),
        latent_bias=tensors.get("encoder.bias"),
    )
    k = int(raw.get("k") or 0)
    sae = encoder_from(
        parts,
        activation="relu_topk",
        k=k,
        normalization="none",
        subtracts_bias=True,
        what=f"{what}/cfg.json",
        weights=f"{what}/{file.name}",
    )
    check_sizes(_sizes(raw), sizes={"d_in": sae.hidden_size, "num_latents": sae.n_latents}, where=f"{what}/cfg.json")
    return ImportedSAE(sae=sae, layer=layer_of_hook(what, what) if what.startswith("layers.") else None, layout="sparsify")


def _sizes(raw: Mapping[str, Any]) -> dict[str, object]:
    """Where no number of latents stands, it is the width times a whole factor."""
    width, factor = raw.get("d_in"), raw.get("expansion_factor")
    if raw.get("num_latents") or not isinstance(width, int) or not isinstance(factor, int):
        return dict(raw)
    return {**raw, "num_latents": width * factor}


def export_sparsify(folder: Path, sae: TopKSAE) -> None:
    """Write an SAE of ours so that `sparsify.SparseCoder.load_from_disk` opens it and encodes *prepared* states the same.

    The layout has no input normalisation: hand it `sae.prepare(hidden_states)`. Raises UsageProblem for activations it lacks.
    """
    if isinstance(sae, SparseEncoder) and (sae.activation not in ("topk", "relu_topk") or not sae.subtracts_bias):
        raise UsageProblem("sparsify has only TopK on the input minus the decoder's bias; export to SAELens instead")
    config: dict[str, Any] = {
        "activation": "topk",
        "expansion_factor": max(1, sae.n_latents // sae.hidden_size),
        "normalize_decoder": True,
        "num_latents": sae.n_latents,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.hidden_size,
    }
    tensors = {"encoder.weight": sae.encoder.weight, "encoder.bias": sae.latent_bias, "W_dec": sae.decoder.weight.T, "b_dec": sae.pre_bias}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_tensor_file(folder / "sae.safetensors", {name: value.float() for name, value in tensors.items()})
