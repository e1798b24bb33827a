"""SparseRM's and SAFER's heads on disk: `head.json` with `head.safetensors`, and the whole reward model around a head.

A whole model has `config.json` (`model_type` `sarm_sparse_rm`), the kept blocks in `model.safetensors` and the tokenizer beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PretrainedConfig, PreTrainedModel

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import copy_tokenizer, empty_backbone, load_config, load_tokenizer, load_truncated_backbone
from sarm.checkpoints.leftovers import known_of, refuse_unknown
from sarm.checkpoints.loading import CPU, Place, fill, without_weights
from sarm.checkpoints.tensors import TensorFolder, write_tensor_file
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.sparse_model import SparseRewardModel
from sarm.reward.sparse_rm import Activations, Dense, Projections, Reader, StateHead, head_parameters
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import Convention, Normalization, SparseEncoder

SPARSE_MODEL_TYPE = "sarm_sparse_rm"


class HeadLayout(BaseModel):
    """What a head's tensors do not say; `n_latents` and `convention` are those of the SAE of an `activations` head."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    layer: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    inputs: Literal["projections", "activations", "dense"]
    read: int = Field(ge=1, description="Numbers that the reader gives.")
    width: int = Field(ge=0, description="Hidden units; 0 for a linear head.")
    normalization: Normalization = "none"
    n_latents: int = 0
    convention: dict[str, Any] | None = Field(default=None, description="As `sarm.sae.sparse_encoder.Convention`.")


def normalization_of(sae: TopKSAE) -> Normalization:
    """What an SAE does to its input first."""
    if isinstance(sae, SparseEncoder):
        return sae.normalization
    return "standardize" if sae.standardizes else "none"


def check_fit(
    conditions: Mapping[str, Any], *, layer: int, sae: TopKSAE, sae_layer: int | None, width: int, whole: bool
) -> None:
    """Raises UsageProblem where states, SAE and head are not of one layer and width, and for a whole model of other pooling.

    `conditions` are those under which the states were harvested.
    """
    if conditions["layer"] != layer or sae_layer not in (None, layer):
        raise UsageProblem(f"states after block {conditions['layer']}, SAE of block {sae_layer}, head for block {layer}; use one layer")
    if sae.hidden_size != width:
        raise UsageProblem(f"the SAE reads {sae.hidden_size} numbers a token, the states have {width}; train an SAE for this backbone")
    if whole and conditions["pooling"] != "end_of_turn":
        raise UsageProblem(f"whole = true needs pooling = 'end_of_turn', the states have {conditions['pooling']!r}; score cached states")


def save_head(folder: Path, head: StateHead, *, layer: int, hidden_size: int) -> None:
    """Write `head.json` and `head.safetensors`."""
    reader = head.reader
    layout: dict[str, Any] = {"layer": layer, "hidden_size": hidden_size, "read": reader.width}
    layout["width"] = head.hidden.out_features if head.hidden is not None else 0
    if isinstance(reader, Activations):
        layout |= {"inputs": "activations", "n_latents": reader.sae.n_latents, "convention": _convention(reader.sae)}
    else:
        layout |= {"inputs": "projections" if isinstance(reader, Projections) else "dense", "normalization": reader.normalization}
    (folder / "head.json").write_text(HeadLayout.model_validate(layout).model_dump_json(indent=1) + "\n", encoding="utf-8")
    write_tensor_file(folder / "head.safetensors", head.state_dict())


def _convention(sae: TopKSAE) -> Convention:
    if isinstance(sae, SparseEncoder):
        return sae.convention
    return Convention(activation="topk", k=sae.k, normalization=normalization_of(sae), subtracts_bias=True)


def load_head(folder: Path) -> tuple[StateHead, HeadLayout]:
    """A head in float32, in evaluation mode. Raises UsageProblem that names a wrong key or a missing, extra or wrongly shaped tensor."""
    path = folder / "head.json"
    if not path.exists():
        raise EnvironmentProblem(f"{folder.name}: no head.json; this is not the folder of a SparseRM or SAFER head")
    try:
        layout = HeadLayout.model_validate_json(path.read_text(encoding="utf-8"))
        with without_weights():
            head = StateHead(_empty_reader(layout), width=layout.width)
    except (ValidationError, ValueError) as error:
        raise UsageProblem(f"{folder.name}/head.json: {' '.join(str(error).split())}; train the head again") from error
    source = TensorFolder(folder / "head.safetensors")
    expected = head.state_dict()
    absent, extra = sorted(set(expected) - source.names), sorted(source.names - set(expected))
    if absent:
        raise UsageProblem(f"{folder.name}: head.safetensors has no tensor {absent[0]!r}; train the head again")
    if extra:
        raise UsageProblem(f"{folder.name}: unknown tensor {extra[0]!r} in head.safetensors; head.json and it do not belong together")
    fill(head, source, {name: name for name in expected}, what=folder.name, asks="head.json")
    return head.eval(), layout


def _empty_reader(layout: HeadLayout) -> Reader:
    if layout.inputs == "projections":
        return Projections(torch.zeros(layout.read, layout.hidden_size), layout.normalization)
    if layout.inputs == "dense":
        return Dense(layout.hidden_size, layout.normalization)
    if layout.convention is None:
        raise ValueError("inputs = 'activations' needs the convention of its SAE")
    sae = SparseEncoder(hidden_size=layout.hidden_size, n_latents=layout.n_latents, **layout.convention)
    return Activations(sae, torch.zeros(layout.read, dtype=torch.long))


def write_backbone(backbone: Path, folder: Path, *, layer: int, dtype: torch.dtype) -> None:
    """Write the first `layer` blocks of `backbone`, `config.json` and the tokenizer beside a head that was saved into `folder`."""
    model = load_truncated_backbone(backbone, layer=layer, dtype=dtype)
    _save_around(folder, model, layer=layer, tokenizer=backbone, pad_id=load_tokenizer(backbone).pad_token_id)


def _save_around(folder: Path, backbone: PreTrainedModel, *, layer: int, tokenizer: Path, pad_id: int) -> None:
    config = backbone.config.to_dict()
    # A path of this machine.
    config.pop("_name_or_path", None)
    config.update(dtype=str(next(backbone.parameters()).dtype).removeprefix("torch."), pad_token_id=pad_id, use_cache=False)
    ours: dict[str, Any] = {
        "model_type": SPARSE_MODEL_TYPE,
        "architectures": [],
        "backbone": config,
        "layer": layer,
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        **{key: config.get(key) for key in ("dtype", "pad_token_id", "bos_token_id", "eos_token_id", "hidden_size", "vocab_size")},
    }
    (folder / "config.json").write_text(json.dumps(ours, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")
    tensors = {f"model.{name}": value for name, value in backbone.state_dict().items()}
    write_tensor_file(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    copy_tokenizer(tokenizer, folder)


def parameter_facts(backbone: Path, layer: int, head: StateHead) -> dict[str, float | int]:
    """Trained numbers of a head, fixed ones that it reads with, and the trained ones' share of the kept blocks and of the whole model."""
    config = load_config(backbone)
    with torch.device("meta"):
        kept = sum(one.numel() for one in truncated_backbone(config, layer).parameters())
        whole = sum(one.numel() for one in truncated_backbone(config, config.get_text_config().num_hidden_layers).parameters())
    width = head.hidden.out_features if head.hidden is not None else 0
    trained = head_parameters(head.reader.width, width)
    reader = head.reader
    fixed = reader.directions.numel() if isinstance(reader, Projections) else 0
    if isinstance(reader, Activations):
        fixed = sum(one.numel() for one in reader.sae.parameters())
    return {
        "trainable_parameters": trained,
        "fixed_parameters": fixed,
        "kept_backbone_parameters": kept,
        "backbone_parameters": whole,
        "share_of_kept_backbone": trained / kept,
        "share_of_backbone": trained / whole,
    }


def load_sparse_reward_model(
    folder: Path, *, config: PretrainedConfig, source: TensorFolder, dtype: torch.dtype, attention: str, device: Place = CPU
) -> SparseRewardModel:
    """A whole model: the kept blocks in `dtype`, the head in float32. Raises UsageProblem for parts that do not fit each other."""
    head, layout = load_head(folder)
    if layout.hidden_size != config.hidden_size:
        widths = f"{layout.hidden_size} numbers a token, the model's states have {config.hidden_size}"
        raise UsageProblem(f"{folder.name}: the head reads {widths}")
    backbone = empty_backbone(config, layout.layer, dtype=dtype, attention=attention, what=folder.name)
    model = SparseRewardModel(backbone, head)
    names = [f"model.{name}" for name in backbone.state_dict()]
    fill(model, source, {name: name for name in names}, what=folder.name, device=device)
    meaning = "config.json and the weights do not belong together"
    refuse_unknown(source, source.names - set(names), layout="decoder", what=folder.name, meaning=meaning, known=known_of(backbone))
    return model.eval()
