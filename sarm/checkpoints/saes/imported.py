"""What every reader of another project's SAE gives back, and the checks that all of them share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.checkpoints.leftovers import Known, Layout, refuse_unknown
from sarm.checkpoints.loading import CPU, fill, without_weights
from sarm.checkpoints.quantized import refuse_other_numbers, refuse_quantized_names
from sarm.checkpoints.tensors import HeldTensors
from sarm.job import UsageProblem
from sarm.sae.sparse_encoder import Activation, Normalization, SparseEncoder
from sarm.store.json_files import place_of

RESIDUAL_HOOK = re.compile(r"(?:blocks|model\.layers|layers|gpt_neox\.layers)\.(\d+)(?:\.hook_resid_(pre|post))?")


class ImportedSAE(NamedTuple):
    """An encoder, the decoder blocks before its hidden states (None where the files do not say), and the layout's name."""

    sae: SparseEncoder
    layer: int | None
    layout: str


class Parts(NamedTuple):
    """Tensors in our shapes; None for one that the layout lacks.

    `encoder` `[n_latents, hidden_size]`, `decoder` `[hidden_size, n_latents]`, `pre_bias` `[hidden_size]`, the rest `[n_latents]`.
    """

    encoder: Tensor | None
    decoder: Tensor | None
    pre_bias: Tensor | None
    latent_bias: Tensor | None
    threshold: Tensor | None = None


def parts_of(tensors: Mapping[str, Tensor]) -> Parts:
    """Tensors under our own names as parts."""
    return Parts(
        encoder=tensors.get("encoder.weight"),
        decoder=tensors.get("decoder.weight"),
        pre_bias=tensors.get("pre_bias"),
        latent_bias=tensors.get("latent_bias"),
        threshold=tensors.get("threshold"),
    )


def encoder_from(
    parts: Parts,
    *,
    activation: Activation,
    k: int,
    normalization: Normalization,
    subtracts_bias: bool,
    what: str,
    weights: str = "",
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> SparseEncoder:
    """An encoder with these tensors. Raises UsageProblem that names a missing or wrongly shaped one.

    `what` is where the settings stand, for messages, `weights` where the tensors do, if that is another file.
    """
    weights = weights or what
    if parts.encoder is None or parts.encoder.ndim != 2:
        raise UsageProblem(f"{weights}: the encoder's weight is missing or no matrix; this is not an SAE")
    n_latents, hidden_size = parts.encoder.shape
    try:
        with without_weights():
            sae = SparseEncoder(
                hidden_size=hidden_size,
                n_latents=n_latents,
                activation=activation,
                k=k,
                normalization=normalization,
                subtracts_bias=subtracts_bias,
            )
    except ValueError as error:
        raise UsageProblem(f"{what}: {error}") from error
    state = _by_our_names(parts, activation)
    return _filled(sae.to(dtype), state, what=weights, device=device)


def _by_our_names(parts: Parts, activation: Activation) -> dict[str, Tensor | None]:
    return {
        "encoder.weight": parts.encoder,
        "decoder.weight": parts.decoder,
        "pre_bias": parts.pre_bias,
        "latent_bias": parts.latent_bias,
        **({"threshold": parts.threshold} if activation == "jumprelu" else {}),
    }


def _filled(sae: SparseEncoder, state: Mapping[str, Tensor | None], *, what: str, device: torch.device) -> SparseEncoder:
    fill(sae, _held(state, sae, what), {name: name for name in state}, what=what, asks="the encoder", device=device)
    return sae


def _held(state: Mapping[str, Tensor | None], sae: SparseEncoder, what: str) -> HeldTensors:
    for name, tensor in state.items():
        expected = sae.state_dict()[name].shape
        if tensor is None:
            raise UsageProblem(f"{what}: no tensor for {name!r} (shape {list(expected)}); this is not a whole SAE")
        if tensor.shape != expected:
            raise UsageProblem(f"{what}: the tensor for {name!r} has shape {list(tensor.shape)}, the encoder asks for {list(expected)}")
    return HeldTensors({name: tensor for name, tensor in state.items() if tensor is not None})


def known_tensors(tensors: Mapping[str, Tensor], names: set[str], *, layout: Layout, file: Path, kind: str = "") -> None:
    """Raises UsageProblem that names a tensor of a file which is quantised, or outside `names` and not known to be harmless.

    `kind` is the class of SAE where the layout has several.
    """
    where = place_of(file)
    refuse_quantized_names(tensors, lambda name: where)
    for name in sorted(names & tensors.keys()):
        refuse_other_numbers(tensors[name], name=name, where=where)
    meaning = "this kind of SAE cannot be converted"
    refuse_unknown(HeldTensors(tensors), set(tensors) - names, layout=layout, what=where, meaning=meaning, known=Known(kind=kind))


def layer_of_hook(hook: str, what: str) -> int | None:
    """Blocks before the states of a hook: `blocks.15.hook_resid_post` and `layers.15` give 16, `...hook_resid_pre` 15.

    None for no hook. Raises UsageProblem for a hook that is not on the residual stream.
    """
    if not hook:
        return None
    found = RESIDUAL_HOOK.fullmatch(hook)
    if not found:
        raise UsageProblem(f"{what}: trained at {hook!r}; only SAEs of the residual stream between blocks can be used here")
    return int(found[1]) + (found[2] != "pre")


def transposed(tensor: Tensor | None) -> Tensor | None:
    """A matrix the other way round; None stays None, for `encoder_from` to name."""
    return tensor.T if tensor is not None and tensor.ndim == 2 else tensor
