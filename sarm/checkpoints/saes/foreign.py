"""Sparse autoencoders of other projects: which layout a path holds, and our own files for what was read.

Every reader follows what its library computes on load and not what the raw tensors suggest: folded norms, thresholds in the
folded scale, biases that are taken off the input or not. Refused with the reason: gated encoders, transcoders, scales that the
files do not hold, hooks other than the residual stream. Tested against the libraries by tests/fixtures/make_sae_fixtures.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from sarm.checkpoints.config_files import checked_settings, read_settings
from sarm.checkpoints.loading import CPU
from sarm.checkpoints.saes.dictionary_learning import read_dictionary_learning
from sarm.checkpoints.saes.gemma_scope import read_gemma_scope
from sarm.checkpoints.saes.imported import ImportedSAE, encoder_from, parts_of
from sarm.checkpoints.saes.llama_scope import read_llama_scope
from sarm.checkpoints.saes.sae_lens import read_sae_lens
from sarm.checkpoints.saes.sparsify import read_sparsify
from sarm.checkpoints.tensors import read_tensor_file, write_tensor_file
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.sae.sparse_encoder import Activation, Normalization
from sarm.store.json_files import understood

LAYOUTS = {
    "SAELens": ("cfg.json", "sae_weights.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "Llama Scope": ("hyperparams.json",),
    "Gemma Scope": ("params.npz",),
}
READERS = {
    "SAELens": read_sae_lens,
    "sparsify": read_sparsify,
    "dictionary_learning": read_dictionary_learning,
    "Llama Scope": read_llama_scope,
    "Gemma Scope": read_gemma_scope,
}


def read_foreign_sae(path: Path) -> ImportedSAE:
    """The SAE in a folder (or a file of it) of any layout above, in float32.

    Raises EnvironmentProblem for a path that is not there, UsageProblem for an unknown layout or anything that cannot be
    converted exactly.
    """
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise EnvironmentProblem(f"{path.name}: no such file or folder; give the folder of an SAE")
    for layout, files in LAYOUTS.items():
        if all((folder / name).exists() for name in files):
            return read_layout(layout, folder)
    known = "; ".join(f"{layout}: {' + '.join(files)}" for layout, files in LAYOUTS.items())
    raise UsageProblem(f"{folder.name}: not an SAE layout that we read ({known})")


def read_layout(layout: str, folder: Path) -> ImportedSAE:
    """The SAE of a folder in one of the layouts. Raises UsageProblem that names the file for a setting that is wrong or absent."""
    with understood(f"{folder.name}/{LAYOUTS[layout][0]}"):
        return READERS[layout](folder)


def checked_fit(imported: ImportedSAE, *, hidden_size: int, layer: int, what: str) -> None:
    """Raises UsageProblem for an SAE of another width or layer than the model's."""
    if imported.sae.hidden_size != hidden_size:
        raise UsageProblem(f"{what}: the SAE reads {imported.sae.hidden_size} numbers a token, the model's states have {hidden_size}")
    if imported.layer not in (None, layer):
        raise UsageProblem(f"{what}: the SAE was trained after block {imported.layer}, the model is cut after block {layer}")


class EncoderGeometry(BaseModel):
    """What the tensors of an imported encoder do not say; `layer` is 0 where its files did not say it either."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layer: int
    hidden_size: int
    n_latents: int
    k: int
    activation: Activation
    normalization: Normalization
    subtracts_bias: bool
    source: str


def save_sparse_encoder(folder: Path, imported: ImportedSAE, *, layer: int = 0) -> None:
    """Write `sae.safetensors` and `sae.json`; `layer` for files that do not name theirs."""
    sae = imported.sae
    geometry = EncoderGeometry(
        layer=imported.layer or layer,
        hidden_size=sae.hidden_size,
        n_latents=sae.n_latents,
        source=imported.layout,
        **sae.convention,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensor_file(folder / "sae.safetensors", sae.state_dict())
    (folder / "sae.json").write_text(geometry.model_dump_json(indent=1) + "\n", encoding="utf-8")


def holds_sparse_encoder(folder: Path) -> bool:
    """Whether a folder's `sae.json` was written by `save_sparse_encoder` and not by `save_sae`."""
    path = folder / "sae.json"
    return path.exists() and "activation" in read_settings(path)


def load_sparse_encoder(folder: Path, dtype: torch.dtype = torch.float32, *, device: torch.device = CPU) -> ImportedSAE:
    """An encoder saved by `save_sparse_encoder`. Raises UsageProblem for tensors that do not fit its geometry."""
    if not holds_sparse_encoder(folder):
        raise EnvironmentProblem(f"{folder.name}: no sae.json of an imported encoder")
    geometry = checked_settings(folder / "sae.json", EncoderGeometry)
    sae = encoder_from(
        parts_of(read_tensor_file(folder / "sae.safetensors")),
        activation=geometry.activation,
        k=geometry.k,
        normalization=geometry.normalization,
        subtracts_bias=geometry.subtracts_bias,
        what=folder.name,
        dtype=dtype,
        device=device,
    )
    if (sae.hidden_size, sae.n_latents) != (geometry.hidden_size, geometry.n_latents):
        raise UsageProblem(f"{folder.name}: tensors of {sae.n_latents} x {sae.hidden_size}, sae.json says otherwise; make it again")
    return ImportedSAE(sae=sae, layer=geometry.layer or None, layout=geometry.source)
