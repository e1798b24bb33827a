"""dictionary_learning: `config.json` (`trainer.dict_class`) + `ae.pt`, tensors alone, in one of its class layouts.

Converted as `load_dictionary` opens them: `AutoEncoder` with decoder columns scaled to 1, the batch top-k classes by their global
threshold, `AutoEncoderTopK` by its k (its saved threshold is not used on encoding). Tested against dictionary-learning 0.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sarm.checkpoints.config_files import read_settings
from sarm.checkpoints.saes.imported import ImportedSAE, Parts, encoder_from, known_tensors, transposed
from sarm.checkpoints.settings_keys import OBJECT, TEXT, WHOLE, Keys, check_keys, check_kind, check_sizes, key_names
from sarm.checkpoints.tensors import read_tensor_file
from sarm.job import UsageProblem
from sarm.sae.sparse_encoder import Activation

CLASSES: dict[str, Activation] = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "relu_topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
    "JumpReluAutoEncoder": "jumprelu",
}
WITHOUT_INPUT_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")
LINEAR, DIRECT = {"encoder.weight", "encoder.bias", "decoder.weight"}, {"W_enc", "W_dec", "b_enc", "b_dec"}
# What each class reads when it encodes and decodes.
NAMES: dict[str, set[str]] = {
    "AutoEncoder": {*LINEAR, "bias"},
    "AutoEncoderNew": {*LINEAR, "decoder.bias"},
    "AutoEncoderTopK": {*LINEAR, "b_dec"},
    "BatchTopKSAE": {*LINEAR, "b_dec", "threshold"},
    "MatryoshkaBatchTopKSAE": {*DIRECT, "threshold"},
    "JumpReluAutoEncoder": {*DIRECT, "threshold"},
}
# Everything else in the file is about training: the class says what is computed, and the tensors say the rest.
KEYS = Keys(
    read={"dict_class": TEXT, "activation_dim": WHOLE, "dict_size": WHOLE},
    changing={},
    harmless=key_names(
        "k trainer_class submodule_name warmup_steps decay_start sparsity_warmup_steps l1_penalty l1_warmup_steps resample_steps",
        "lambda_warm_steps initial_sparsity_penalty target_l0 sparsity_penalty bandwidth p_start p_end anneal_start anneal_end",
        "sparsity_function sparsity_queue_length n_sparsity_updates threshold_beta threshold_start_step group_fractions",
        "group_weights group_sizes num_groups k_anneal_steps pre_encoder_bias",
    ),
)


def read_dictionary_learning(folder: Path) -> ImportedSAE:
    """The dictionary of a folder. Raises UsageProblem for a class that cannot be converted and for disagreeing k."""
    what = folder.name
    settings = read_settings(folder / "config.json")
    check_keys(settings, Keys({"trainer": OBJECT}, {}, key_names("buffer")), f"{what}/config.json")
    trainer = settings.get("trainer") or {}
    check_keys(trainer, KEYS, f"{what}/config.json", within="trainer")
    name = str(trainer.get("dict_class", ""))
    if name not in CLASSES:
        raise UsageProblem(f"{what}/config.json: dict_class {name!r} cannot be converted; known: {', '.join(CLASSES)}")
    tensors = read_tensor_file(folder / "ae.pt")
    known_tensors(tensors, NAMES[name], layout="dictionary_learning", file=folder / "ae.pt", kind=name)
    k = _k(trainer, tensors.get("k"), what) if CLASSES[name] == "relu_topk" else 0
    sae = encoder_from(
        _parts(tensors),
        activation=CLASSES[name],
        k=k,
        normalization="none",
        subtracts_bias=name not in WITHOUT_INPUT_BIAS,
        what=f"{what}/config.json",
        weights=f"{what}/ae.pt",
    )
    check_sizes(trainer, sizes={"activation_dim": sae.hidden_size, "dict_size": sae.n_latents}, where=f"{what}/config.json")
    # The library leaves a decoder alone whose columns are all but 1, and so do we: the division would only add rounding.
    if name == "AutoEncoder" and not torch.allclose(norms := sae.decoder.weight.norm(dim=0), torch.ones_like(norms)):
        sae.fold_decoder_norms()
    return ImportedSAE(sae=sae, layer=_layer(trainer, f"{what}/config.json"), layout="dictionary_learning")


def _parts(tensors: Mapping[str, Tensor]) -> Parts:
    encoder = tensors["encoder.weight"] if "encoder.weight" in tensors else transposed(tensors.get("W_enc"))
    decoder = tensors["decoder.weight"] if "decoder.weight" in tensors else transposed(tensors.get("W_dec"))
    threshold = tensors.get("threshold")
    if threshold is not None and threshold.ndim == 0 and encoder is not None:
        threshold = threshold.expand(len(encoder))
    return Parts(
        encoder=encoder,
        decoder=decoder,
        pre_bias=next((tensors[name] for name in ("b_dec", "bias", "decoder.bias") if name in tensors), None),
        latent_bias=next((tensors[name] for name in ("encoder.bias", "b_enc") if name in tensors), None),
        threshold=threshold,
    )


def _k(trainer: Mapping[str, object], stored: Tensor | None, what: str) -> int:
    check_kind(trainer, "k", WHOLE, f"{what}/config.json", within="trainer")
    stated = trainer.get("k")
    if stored is not None and stated is not None and int(stored) != stated:
        raise UsageProblem(f"{what}: config.json says k = {stated}, ae.pt says {int(stored)}; which is right?")
    if stored is not None:
        return int(stored)
    if isinstance(stated, int | float):
        return int(stated)
    raise UsageProblem(f"{what}: neither config.json nor ae.pt says k")


def _layer(trainer: Mapping[str, object], what: str) -> int | None:
    submodule = str(trainer.get("submodule_name") or "")
    if submodule and not submodule.startswith("resid_post"):
        raise UsageProblem(f"{what}: trained at {submodule!r}; only SAEs of the residual stream between blocks can be used here")
    layer = trainer.get("layer")
    return layer + 1 if isinstance(layer, int) else None
