"""SAEs on disk: `sae.safetensors` with `sae.json`, and the authors' tensors-only `.pt` whose name carries the geometry."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from sarm.checkpoints.config_files import checked_settings, read_model_settings, settings_understood
from sarm.checkpoints.loading import CPU, fill, place_in, without_weights
from sarm.checkpoints.quantized import refuse_other_numbers
from sarm.checkpoints.saes.foreign import holds_sparse_encoder, load_sparse_encoder
from sarm.checkpoints.sarm_geometry import geometry_in_config
from sarm.checkpoints.tensors import HeldTensors, TensorFolder, TensorSource, read_tensor_file, write_tensor_file
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.sae.model import TopKSAE

AUTHORS_NAME = re.compile(r"_Latent(\d+)_Layer(\d+)_K(\d+)_")
# Of an SAE's tensors in a reward model.
PREFIX = "sae."
PARAMETERS = ("pre_bias", "latent_bias", "encoder.weight", "decoder.weight")


class SAEGeometry(BaseModel):
    """What the tensors alone do not say."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    layer: int
    hidden_size: int
    n_latents: int
    k: int
    standardize: bool = True


def save_sae(folder: Path, sae: TopKSAE, *, layer: int) -> None:
    """Write `sae.safetensors` and `sae.json`."""
    write_tensor_file(folder / "sae.safetensors", sae.state_dict())
    geometry = SAEGeometry(layer=layer, hidden_size=sae.hidden_size, n_latents=sae.n_latents, k=sae.k, standardize=sae.standardizes)
    (folder / "sae.json").write_text(geometry.model_dump_json(indent=1) + "\n", encoding="utf-8")


def sae_from(
    source: TensorSource,
    geometry: SAEGeometry,
    *,
    what: str,
    dtype: torch.dtype | None = None,
    prefix: str = "",
    device: torch.device = CPU,
) -> TopKSAE:
    """An SAE of the given geometry from tensors whose names begin with `prefix`, in `dtype` or, for None, in that of its encoder.

    Raises UsageProblem that names a missing, extra or wrongly shaped tensor.
    """
    if not 1 <= geometry.k <= geometry.n_latents:
        raise UsageProblem(f"{what}: k = {geometry.k} must lie between 1 and the width {geometry.n_latents}; correct the geometry")
    names = {name: prefix + name for name in PARAMETERS}
    known = [theirs for theirs in names.values() if theirs in source.names]
    extra = sorted(name for name in source.names - set(known) if name.startswith(prefix))
    if extra and len(known) == len(names):
        raise UsageProblem(f"{what}: unknown tensor {extra[0]!r}; a TopK SAE has {', '.join(PARAMETERS)}")
    with without_weights():
        sae = TopKSAE(hidden_size=geometry.hidden_size, n_latents=geometry.n_latents, k=geometry.k, standardizes=geometry.standardize)
    if names["encoder.weight"] in known:
        encoder = source.tensor(names["encoder.weight"])
        where = place_in(source, names["encoder.weight"], what)
        refuse_other_numbers(encoder, name=names["encoder.weight"], where=where)
        sae.to(dtype or encoder.dtype)
    fill(sae, source, names, what=what, asks="the geometry", device=device)
    return sae


def load_sae(folder: Path, dtype: torch.dtype = torch.float32, *, device: torch.device = CPU) -> tuple[TopKSAE, SAEGeometry]:
    """An SAE saved by `save_sae`, or another project's saved by `save_sparse_encoder` (its `k` is 0 where it has none).

    Raises EnvironmentProblem for a folder without one, UsageProblem for tensors that do not fit the geometry.
    """
    if not (folder / "sae.json").exists():
        raise EnvironmentProblem(f"{folder.name}: no sae.json; this is not an SAE artifact")
    if holds_sparse_encoder(folder):
        imported = load_sparse_encoder(folder, dtype, device=device)
        encoder = imported.sae
        standardizes = encoder.normalization == "standardize"
        shape = {"hidden_size": encoder.hidden_size, "n_latents": encoder.n_latents, "k": encoder.convention["k"]}
        return encoder, SAEGeometry(layer=imported.layer or 0, standardize=standardizes, **shape)
    geometry = checked_settings(folder / "sae.json", SAEGeometry)
    if not (folder / "sae.safetensors").exists():
        raise EnvironmentProblem(f"{folder.name}: no sae.safetensors beside sae.json; make or fetch the SAE again")
    return sae_from(TensorFolder(folder / "sae.safetensors"), geometry, what=folder.name, dtype=dtype, device=device), geometry


def import_authors_sae(path: Path) -> tuple[TopKSAE, SAEGeometry]:
    """The authors' stage-1 file, for example `..._sequence_Latent65536_Layer16_K192_1B.pt`.

    The geometry is parsed from the file name once, here, and written into our own config when saved; the widths must agree with
    the tensors. Source: bradley_terry.py:258.
    """
    found = AUTHORS_NAME.search(path.name)
    if not found:
        raise UsageProblem(f"{path.name}: the name carries no _Latent<M>_Layer<l>_K<k>_; rename the file as the authors' code does")
    n_latents, layer, k = (int(part) for part in found.groups())
    tensors = read_tensor_file(path)
    if "pre_bias" not in tensors:
        raise UsageProblem(f"{path.name}: tensor 'pre_bias' is missing")
    geometry = SAEGeometry(layer=layer, hidden_size=tensors["pre_bias"].shape[0], n_latents=n_latents, k=k)
    return sae_from(HeldTensors(tensors), geometry, what=path.name), geometry


def sae_of_checkpoint(folder: Path) -> tuple[TopKSAE, SAEGeometry]:
    """The SAE inside a SARM of ours or in the authors' layout, such as the released PostSAEPretrain.

    Raises UsageProblem for a folder without `sae.*` tensors or without the SAE's geometry in its config.
    """
    raw = read_model_settings(folder)
    source = TensorFolder(folder)
    there = any(name.startswith(PREFIX) for name in source.names)
    with settings_understood(folder.name, raw):
        found = geometry_in_config(raw, where=f"{folder.name}/config.json")
    if not there or found is None:
        lacking = "tensors named 'sae.*'" if not there else "geometry of the SAE in config.json (sarm_param)"
        raise UsageProblem(f"{folder.name}: no {lacking}; give a SARM of ours or of the authors")
    if f"{PREFIX}pre_bias" not in source.names:
        raise UsageProblem(f"{folder.name}: tensor 'sae.pre_bias' is missing")
    width = source.tensor(f"{PREFIX}pre_bias").shape[0]
    geometry = SAEGeometry(
        layer=found.layer, hidden_size=width, n_latents=found.n_latents, k=found.k, standardize=found.standardize
    )
    return sae_from(source, geometry, what=folder.name, prefix=PREFIX), geometry
