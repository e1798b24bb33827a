"""Published reward models with heads of their own, told apart by the names of their tensors; none of their code is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PretrainedConfig

from sarm.checkpoints.backbones import empty_backbone
from sarm.checkpoints.config_files import settings_understood
from sarm.checkpoints.leftovers import known_of
from sarm.checkpoints.loading import Place, fill, place_in
from sarm.checkpoints.quantized import refuse_quantized_names
from sarm.checkpoints.reward_models.gated import MARK, build_gated
from sarm.checkpoints.reward_models.grm import PREFIX, build_grm
from sarm.checkpoints.reward_models.head_tensors import HeadTensors
from sarm.checkpoints.reward_models.ldl import HEADS, build_ldl, ldl_side_files
from sarm.checkpoints.tensors import TensorFolder
from sarm.reward.baselines import PublishedRewardModel

PublishedLayout = Literal["gated", "value_head", "ldl"]


def published_layout(folder: Path, source: TensorFolder) -> PublishedLayout | None:
    """Which of the layouts a folder has; None for a plain sequence classifier and for anything unknown."""
    if MARK in source.names:
        return "gated"
    if any(name.startswith(f"{PREFIX}.") for name in source.names):
        return "value_head"
    if all((folder / f"{head}.pt").exists() or f"{head}.network.0.weight" in source.names for head in HEADS):
        return "ldl"
    return None


def official_bos(layout: PublishedLayout | None, raw: Mapping[str, Any]) -> Literal["single", "double-first-masked", "double"]:
    """How the official harness' class for this model treats the two BOS that templates and tokenizers give Llama 3 texts.

    ArmoRM's and GRM's keep both, LDL's drops the first, the one for QRM and plain classifiers masks it.
    Source: rewardbench 0.1.4, models/{armorm,grm,ldlreward,pipeline}.py.
    """
    if layout == "value_head" or (layout == "gated" and "num_quantiles" not in raw):
        return "double"
    return "single" if layout == "ldl" else "double-first-masked"


def load_published(
    folder: Path,
    layout: PublishedLayout,
    *,
    raw: Mapping[str, Any],
    config: PretrainedConfig,
    source: TensorFolder,
    dtype: torch.dtype,
    attention: str,
    device: Place,
) -> PublishedRewardModel:
    """The model in evaluation mode, decoder in `dtype` and heads in float32.

    Raises UsageProblem that names a missing, extra or wrongly shaped tensor.
    """
    what = folder.name
    text = config.get_text_config()
    backbone = empty_backbone(config, text.num_hidden_layers, dtype=dtype, attention=attention, keep_final_norm=True, what=what, raw=raw)
    refuse_quantized_names(source.names, lambda name: place_in(source, name, what))
    prefix = "model." if "model.embed_tokens.weight" in source.names else ""
    names = {name: prefix + name for name in backbone.state_dict()}
    heads = HeadTensors(_head_tensors(folder, source, set(names.values())), what)
    builders: dict[PublishedLayout, Callable[[], PublishedRewardModel]] = {
        "gated": lambda: build_gated(raw, backbone, heads, hidden_size=text.hidden_size),
        "value_head": lambda: build_grm(backbone, heads, hidden_size=text.hidden_size),
        "ldl": lambda: build_ldl(raw, backbone, heads, hidden_size=text.hidden_size),
    }
    with settings_understood(what, raw):
        model = builders[layout]()
    heads.finish(known_of(backbone))
    fill(model, source, {f"model.{ours}": theirs for ours, theirs in names.items()}, what=what, device=device)
    return model.eval()


def _head_tensors(folder: Path, source: TensorFolder, taken: set[str]) -> dict[str, Tensor]:
    found = ldl_side_files(folder)
    source.read([(name, name) for name in sorted(source.names - taken)], found.__setitem__)
    return found
