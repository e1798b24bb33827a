"""Reward models on disk: our own layout, the authors', plain sequence classifiers of transformers, and published heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from sarm.backbone.decoder import UnappliedNorm, truncated_backbone
from sarm.checkpoints.backbones import copy_tokenizer
from sarm.checkpoints.config_files import read_model_settings, settings_understood
from sarm.checkpoints.leftovers import known_of, refuse_unknown
from sarm.checkpoints.loading import CPU, Place, fill, place_in, without_weights
from sarm.checkpoints.quantized import refuse_quantized_names
from sarm.checkpoints.reward_models.published import load_published, published_layout
from sarm.checkpoints.reward_models.sparse_heads import SPARSE_MODEL_TYPE, load_sparse_reward_model
from sarm.checkpoints.sarm_geometry import SARMGeometry, geometry_in_config, geometry_in_name
from sarm.checkpoints.spread import Spread
from sarm.checkpoints.tensors import TensorFolder, write_tensor_file
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.baselines import PublishedRewardModel
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel
from sarm.reward.sparse_model import SparseRewardModel
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import SparseEncoder

OUR_MODEL_TYPE = "sarm"
# Below a reward model's folder: the model as it was after each epoch but the last, in a folder of the epoch's number.
EPOCHS = "epochs"
# A SARM on another project's SAE: a type of its own, as sarm.reward.hf, which knows TopK alone, must not open it.
IMPORTED_MODEL_TYPE = "sarm_imported"
OUR_TYPES = (OUR_MODEL_TYPE, IMPORTED_MODEL_TYPE)
FIRST_WEIGHT = "model.embed_tokens.weight"
NOT_TOGETHER = "the config and the weights do not belong together"
CLASSIFIER_CODE = ("AutoModelForSequenceClassification", "AutoModel")


def read_config(folder: Path) -> dict[str, Any]:
    """The raw `config.json`."""
    path = folder / "config.json"
    if not path.exists():
        if (folder / "head.json").exists():
            raise UsageProblem(f"{folder.name}: a head alone, which reads cached states; train it with whole = true for a reward model")
        raise EnvironmentProblem(f"{folder.name}: no config.json; give the folder of a reward model")
    return read_model_settings(folder)


def backbone_config(raw: dict[str, Any], *, what: str) -> PretrainedConfig:
    """The decoder's configuration of a checkpoint; one without `model_type` (the goldens) is a Llama if its architecture says so."""
    if not isinstance(raw, dict):
        raise UsageProblem(f"{what}: config.json: backbone: a JSON object is expected; save the model again")
    architecture = str((raw.get("architectures") or [raw.get("architecture", "")])[0])
    model_type = raw.get("model_type") or ("llama" if architecture.startswith("Llama") else None)
    if model_type is None:
        raise UsageProblem(f"{what}: config.json has no model_type; say which architecture the backbone is")
    fields = {key: value for key, value in raw.items() if key not in ("model_type", "auto_map", "architecture")}
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UsageProblem(f"{what}: model_type {model_type!r} is not known to transformers; remote code is never run")
    with settings_understood(what, raw):
        return AutoConfig.for_model(model_type, **fields)


def load_reward_model(
    folder: Path, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa", device: Place = CPU
) -> RewardModel:
    """A reward model in any of the layouts, in evaluation mode, on `device`; backbone and SAE in `dtype`, the head in float32.

    A model that is spread over several devices is for its own forward pass alone, not for packed rows. Raises UsageProblem that names
    what does not fit: a missing or wrongly shaped tensor, more than one label, an unknown layout.
    """
    model = _loaded(folder, dtype=dtype, attention=attention, device=device)
    if isinstance(device, Spread):
        device.dispatched(model)
    return model


def _loaded(folder: Path, *, dtype: torch.dtype, attention: str, device: Place) -> RewardModel:
    raw = read_config(folder)
    source = TensorFolder(folder)
    if raw.get("model_type") == SPARSE_MODEL_TYPE:
        with settings_understood(folder.name, raw):
            config = backbone_config(raw["backbone"], what=folder.name)
        return load_sparse_reward_model(folder, config=config, source=source, dtype=dtype, attention=attention, device=device)
    layout = None if raw.get("model_type") in OUR_TYPES or "sae.encoder.weight" in source.names else published_layout(folder, source)
    if layout:
        config = backbone_config(raw, what=folder.name)
        return load_published(folder, layout, raw=raw, config=config, source=source, dtype=dtype, attention=attention, device=device)
    with settings_understood(folder.name, raw), without_weights():
        model = _empty_model(raw, source, attention=attention, what=folder.name)
    return _filled(model, source, dtype=dtype, what=folder.name, device=device)


def _empty_model(raw: dict[str, Any], source: TensorFolder, *, attention: str, what: str) -> RewardModel:
    if raw.get("model_type") in OUR_TYPES:
        return _from_ours(raw, attention=attention, what=what)
    if "sae.encoder.weight" not in source.names:
        return _scalar(raw, source, attention=attention, what=what)
    geometry = geometry_in_config(raw, where=f"{what}/config.json")
    if geometry is None:
        raise UsageProblem(f"{what}: config.json has no SAE geometry; rewrite it once with sarm.import_authors_checkpoint")
    return _sarm(backbone_config(raw, what=what), geometry, attention=attention, what=what)


def import_authors_checkpoint(folder: str | Path, target: str | Path) -> None:
    """Rewrite an authors' run whose geometry stands only in the directory's name into our own layout, in a new folder `target`.

    The name is read once, here; from then on `config.json` says it. A `checkpoint-N` folder is named by its parent. Raises
    UsageProblem for a name without geometry and for tensors that do not fit.
    """
    folder, target = Path(folder), Path(target)
    raw = read_config(folder)
    name = folder.parent.name if folder.name.startswith("checkpoint-") else folder.name
    with settings_understood(folder.name, raw):
        geometry = geometry_in_config(raw, where=f"{folder.name}/config.json") or geometry_in_name(name)
        config = backbone_config(raw, what=folder.name)
    with settings_understood(folder.name, raw), without_weights():
        sarm = _sarm(config, geometry, attention="sdpa", what=folder.name)
    model = _filled(sarm, TensorFolder(folder), dtype=torch.float32, what=folder.name, device=CPU)
    save_reward_model(target, model, encoder="sae", tokenizer=folder)


def save_reward_model(
    folder: Path, model: RewardModel, *, encoder: str, tokenizer: Path | None, pad_id: int | None = None
) -> None:
    """As `save_weights`, with the weights that the model has."""
    save_weights(folder, model, model.state_dict(), encoder=encoder, tokenizer=tokenizer, pad_id=pad_id)


def save_weights(
    folder: Path, model: RewardModel, tensors: Mapping[str, Tensor], *, encoder: str, tokenizer: Path | None, pad_id: int | None
) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files of a model with these weights, whole, by its names.

    The model's own may lie in pieces in other processes, or be those of a later step: only its shape is asked for.

    A scalar model becomes a plain sequence classifier that `AutoModelForSequenceClassification` reads; a SARM or linear-encoder
    model opens there after `import sarm.reward.hf`. `pad_id` is the tokenizer's, for a backbone whose config names none (Llama 3.1):
    transformers refuses to pool a batch without it. Raises UsageProblem for a head that has files of its own.
    """
    if isinstance(model, PublishedRewardModel | SparseRewardModel):
        raise UsageProblem(f"a {type(model).__name__} keeps the files that it was published in; copy them instead")
    folder.mkdir(parents=True, exist_ok=True)
    text = model.model.config
    config = text.to_dict()
    # A path of this machine.
    config.pop("_name_or_path", None)
    # The weights' own precision: transformers opens a folder in the one that its config names.
    config["dtype"] = str(tensors[FIRST_WEIGHT].dtype).removeprefix("torch.")
    if pad_id is not None:
        config["pad_token_id"] = pad_id
    config.update(num_labels=1, id2label={"0": "reward"}, label2id={"reward": 0}, use_cache=False)
    if isinstance(model, DenseRewardModel):
        config["architectures"] = [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[text.model_type]]
    else:
        config = _our_config(config, model, encoder=encoder)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")
    write_tensor_file(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    if tokenizer is not None:
        copy_tokenizer(tokenizer, folder)


def _our_config(backbone: dict[str, Any], model: RewardModel, *, encoder: str) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "model_type": OUR_MODEL_TYPE,
        "architectures": ["SarmForSequenceClassification"],
        "backbone": backbone,
        "encoder": encoder,
        "layer": model.layer,
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
    }
    ours.update({key: backbone.get(key) for key in ("dtype", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_size", "vocab_size")})
    if isinstance(model, SARM):
        ours.update(n_latents=model.sae.n_latents, k=model.sae.k, latents=model.latents, standardize=model.sae.standardizes)
        if isinstance(model.sae, SparseEncoder):
            ours.update(model_type=IMPORTED_MODEL_TYPE, architectures=[], sae_convention=model.sae.convention)
    else:
        ours.update(n_latents=model.score.in_features)
    return ours


def _from_ours(raw: dict[str, Any], *, attention: str, what: str) -> RewardModel:
    needed = ("n_latents",) if raw.get("encoder") == "linear" else tuple(SARMGeometry.model_fields)
    absent = next((key for key in ("backbone", "encoder", "layer", *needed) if key not in raw), None)
    if absent:
        raise UsageProblem(f"{what}: config.json has no {absent!r}; save the model again")
    config = backbone_config(raw["backbone"], what=what)
    if raw["encoder"] == "linear":
        backbone = truncated_backbone(config, raw["layer"], attention=attention)
        return LinearEncoderRewardModel(backbone, hidden_size=config.hidden_size, n_latents=raw["n_latents"])
    if raw["model_type"] == IMPORTED_MODEL_TYPE:
        imported = SparseEncoder(hidden_size=config.hidden_size, n_latents=raw["n_latents"], **raw["sae_convention"])
        return SARM(truncated_backbone(config, raw["layer"], attention=attention), imported, latents=raw["latents"])
    fields = {key: raw[key] for key in SARMGeometry.model_fields}
    return _sarm(config, SARMGeometry(**fields), attention=attention, what=what)


def _sarm(config: PretrainedConfig, geometry: SARMGeometry, *, attention: str, what: str) -> SARM:
    try:
        backbone = truncated_backbone(config, geometry.layer, attention=attention)
        sae = TopKSAE(hidden_size=config.hidden_size, n_latents=geometry.n_latents, k=geometry.k, standardizes=geometry.standardize)
    except ValueError as error:
        raise UsageProblem(f"{what}: {error}") from error
    return SARM(backbone, sae, latents=geometry.latents)


def _scalar(raw: dict[str, Any], source: TensorFolder, *, attention: str, what: str) -> RewardModel:
    if "score.weight" not in source.names:
        raise UsageProblem(f"{what}: no tensor 'score.weight'; this is not a reward model{_remote_code(raw)}")
    if _remote_code(raw):
        raise UsageProblem(f"{what}: unknown layout{_remote_code(raw)}, so its score is not known; give a model of a known layout")
    config = backbone_config(raw, what=what)
    if config.num_labels != 1:
        raise UsageProblem(f"{what}: {config.num_labels} labels; a reward model has exactly one")
    backbone = truncated_backbone(config, config.get_text_config().num_hidden_layers, keep_final_norm=True, attention=attention)
    return DenseRewardModel(backbone, hidden_size=config.hidden_size)


def _remote_code(raw: dict[str, Any]) -> str:
    """Which class of its own repository a config asks for, as words for a message; empty for none."""
    code = next((raw["auto_map"][name] for name in CLASSIFIER_CODE if name in (raw.get("auto_map") or {})), None)
    return f" (config.json asks for the remote code {code}, which is never run)" if code else ""


def _filled(model: RewardModel, source: TensorFolder, *, dtype: torch.dtype, what: str, device: Place) -> RewardModel:
    model.to(dtype)
    model.score.to(torch.float32)
    state = model.state_dict()
    norm = model.model.get_submodule("norm")
    # The released layout stores the final norm but never applies it; some conversions leave it out.
    absent = {"model.norm.weight"} - source.names if isinstance(norm, UnappliedNorm) else set()
    names = {name: name for name in state if name not in absent}
    refuse_quantized_names(source.names, lambda name: place_in(source, name, what))
    known = known_of(model.model)
    refuse_unknown(source, source.names - set(state), layout="decoder", what=what, meaning=NOT_TOGETHER, known=known)
    if absent and isinstance(norm, UnappliedNorm):
        norm.weight = nn.Parameter(norm.first_weight().to(dtype), requires_grad=False)
    fill(model, source, names, what=what, device=device)
    return model.eval()
