"""An SAE trained elsewhere as an artifact that reward training takes like one of our own.

Inputs: perhaps `checkpoint`. Writes as `train_sae` without metrics; `sae.json` of another project's SAE names its activation and
normalisation.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from sarm.checkpoints.saes.files import SAEGeometry, import_authors_sae, load_sae, sae_of_checkpoint, save_sae
from sarm.checkpoints.saes.foreign import (
    LAYOUTS,
    checked_fit,
    holds_sparse_encoder,
    load_sparse_encoder,
    read_foreign_sae,
    read_layout,
    save_sparse_encoder,
)
from sarm.checkpoints.saes.imported import ImportedSAE
from sarm.config.weights import ImportedSAEConfig
from sarm.job import EnvironmentProblem, JobContext, UsageProblem
from sarm.sae.model import TopKSAE
from sarm.store.whole_files import NO_ROOM


def import_sae(config: ImportedSAEConfig, context: JobContext) -> None:
    """Read the SAE, check that it fits the model, write `sae.safetensors` and `sae.json`.

    Raises UsageProblem for an SAE of another width or layer, an unknown layout, a pickle, missing or wrongly shaped tensors;
    EnvironmentProblem for files that are not there or cannot be downloaded.
    """
    context.progress(0, 1, "saes", config.layout)
    if config.origin == "checkpoint":
        _write_own(config, context.output, *sae_of_checkpoint(context.inputs["checkpoint"]))
    elif config.origin == "hub":
        downloaded = context.checkpoint / "download"
        _download(config, downloaded)
        _write(config, context.output, _inside(downloaded, config.file))
    else:
        _write(config, context.output, _inside(context.locations["source"], config.file))
    context.progress(1, 1, "saes", config.layout)


def _inside(folder: Path, file: str) -> Path:
    path = folder / file if file else folder
    if not path.exists():
        raise EnvironmentProblem(f"{path.name}: no such file or folder; correct starts.<slot>.source or starts.<slot>.file")
    return path


def _write(config: ImportedSAEConfig, output: Path, path: Path) -> None:
    folder = path.parent if path.is_file() else path
    if config.layout == "ours" and not holds_sparse_encoder(folder):
        _write_own(config, output, *load_sae(folder))
        return
    if config.layout == "authors-file":
        _write_own(config, output, *import_authors_sae(path))
        return
    if config.layout == "ours":
        imported = load_sparse_encoder(folder)
    else:
        imported = read_foreign_sae(path) if config.layout == "auto" else _of_layout(config.layout, folder)
    if imported.layer is None and config.stated_layer:
        imported = imported._replace(layer=config.stated_layer)
    if imported.layer is None:
        raise UsageProblem(f"{path.name}: the files do not say after which block the SAE was trained; set starts.<slot>.layer")
    checked_fit(imported, hidden_size=config.hidden_size, layer=config.layer, what=path.name)
    save_sparse_encoder(output, imported)


def _of_layout(layout: str, folder: Path) -> ImportedSAE:
    absent = [name for name in LAYOUTS[layout] if not (folder / name).exists()]
    if absent:
        raise UsageProblem(f"{folder.name}: no {absent[0]}, which an SAE in the layout of {layout} has; set starts.<slot>.layout=auto")
    return read_layout(layout, folder)


def _write_own(config: ImportedSAEConfig, output: Path, sae: TopKSAE, geometry: SAEGeometry) -> None:
    if (geometry.layer, geometry.hidden_size) != (config.layer, config.hidden_size):
        raise UsageProblem(
            f"the SAE was trained after block {geometry.layer} on states of width {geometry.hidden_size}, "
            f"the model is cut after block {config.layer} and has width {config.hidden_size}"
        )
    save_sae(output, sae, layer=geometry.layer)


def _download(config: ImportedSAEConfig, target: Path) -> None:
    where = f"{config.repository}@{config.revision[:12]}"
    patterns = [config.file, f"{config.file}/**"] if config.file else None
    try:
        snapshot_download(config.repository, revision=config.revision, local_dir=target, allow_patterns=patterns)
    except GatedRepoError as error:
        raise EnvironmentProblem(f"{where} is gated: accept its licence on the hub, set HF_TOKEN, then run `replicate fetch`") from error
    except RepositoryNotFoundError as error:
        raise EnvironmentProblem(f"{where}: no such repository on the hub, or it is private and HF_TOKEN is not set") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise EnvironmentProblem(f"{where} cannot be downloaded ({type(error).__name__}); run it where there is a network") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)
