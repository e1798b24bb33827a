"""The SAE at a path, whatever layout it has: our own, the authors', the one inside a SARM, and those of other projects."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sarm.checkpoints.config_files import read_model_settings, settings_understood
from sarm.checkpoints.saes.files import AUTHORS_NAME, import_authors_sae, load_sae, sae_of_checkpoint
from sarm.checkpoints.saes.foreign import holds_sparse_encoder, load_sparse_encoder, read_foreign_sae
from sarm.checkpoints.saes.imported import encoder_from, parts_of
from sarm.checkpoints.tensors import INDEX, TensorFolder
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.sae.model import TopKSAE


class FoundSAE(NamedTuple):
    """An SAE in float32, the decoder blocks before its hidden states (None where the files do not say), and its layout's name."""

    sae: TopKSAE
    layer: int | None
    layout: str


def own_sae(folder: Path) -> FoundSAE:
    """An SAE artifact of ours: trained here, or imported. Raises EnvironmentProblem for a folder without `sae.json`."""
    if holds_sparse_encoder(folder):
        return FoundSAE(*load_sparse_encoder(folder))
    sae, geometry = load_sae(folder)
    return FoundSAE(sae, geometry.layer, "ours")


def read_sae(path: Path) -> FoundSAE:
    """The SAE in a folder, or in a file of one; the authors' `.pt` is named by its own path.

    Raises EnvironmentProblem for a path that is not there, UsageProblem for an unknown layout or anything that cannot be converted
    exactly.
    """
    if not path.exists():
        raise EnvironmentProblem(f"{path.name}: no such file or folder; give the folder of an SAE")
    if path.is_file() and AUTHORS_NAME.search(path.name):
        sae, geometry = import_authors_sae(path)
        return FoundSAE(sae, geometry.layer, "authors-file")
    folder = path.parent if path.is_file() else path
    if (folder / "sae.json").exists():
        return own_sae(folder)
    if (folder / "config.json").exists() and any((folder / name).exists() for name in ("model.safetensors", INDEX)):
        return _inside_reward_model(folder)
    single = next((one.name for one in sorted(folder.iterdir()) if AUTHORS_NAME.search(one.name)), None)
    if single is not None:
        raise UsageProblem(f"{folder.name}: an SAE of the authors is one file; give its path, for example {folder.name}/{single}")
    return FoundSAE(*read_foreign_sae(path))


def _inside_reward_model(folder: Path) -> FoundSAE:
    raw = read_model_settings(folder)
    if "sae_convention" not in raw:
        sae, geometry = sae_of_checkpoint(folder)
        return FoundSAE(sae, geometry.layer, "checkpoint")
    tensors: dict[str, Tensor] = {}
    source = TensorFolder(folder)
    source.read([(name.removeprefix("sae."), name) for name in sorted(source.names) if name.startswith("sae.")], tensors.__setitem__)
    with settings_understood(folder.name, raw):
        sae = encoder_from(parts_of(tensors), **raw["sae_convention"], what=folder.name)
        return FoundSAE(sae, int(raw["layer"]), "checkpoint")
