"""Backbones and tokenizers in Hugging Face layout; only the blocks that are kept are read from disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.config_files import read_model_settings, read_settings, refuse_endless_labels, settings_understood
from sarm.checkpoints.leftovers import known_of, refuse_unknown
from sarm.checkpoints.loading import CPU, fill, without_weights
from sarm.checkpoints.tensors import TensorFolder
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.json_files import place_of

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)

# The language-model head.
HEAD = "lm_head.weight"
SENTENCEPIECE_FILE = "tokenizer.model"
# The first byte of its protocol buffer; a file of tiktoken is lines of base64.
SENTENCEPIECE_START = b"\n"


def load_config(folder: Path) -> PretrainedConfig:
    """The model's configuration; remote code is refused. Raises UsageProblem or EnvironmentProblem."""
    if not (folder / "config.json").exists():
        raise EnvironmentProblem(f"{folder.name}: no config.json; give a model folder in Hugging Face layout")
    raw = read_model_settings(folder)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        extra = " (its auto_map asks for remote code, which is never run)" if "auto_map" in raw else ""
        raise UsageProblem(f"{folder.name}: model_type {kind!r} is not known to transformers{extra}")
    with settings_understood(folder.name, raw):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises EnvironmentProblem where there is none or its package, UsageProblem for files that are damaged."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise EnvironmentProblem(f"{folder.name}: no tokenizer files; copy the tokenizer beside the weights")
    path = folder / "config.json"
    raw = read_settings(path) if path.exists() else {}
    refuse_endless_labels(raw, place_of(path))
    # Our own model types: what transformers would make of them itself, but for a warning that tells nothing.
    known = {"config": PretrainedConfig.from_dict(raw)} if "backbone" in raw else {}
    _require_package(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **known)
        # What the library takes as it stands and stumbles over in the first row.
        if not isinstance(tokenizer.model_max_length, int | float):
            raise ValueError(f"model_max_length is {tokenizer.model_max_length!r}")
        return tokenizer
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise EnvironmentProblem(f"{folder.name}: the tokenizer needs a package that is not here ({reason}); install it") from error
    except Exception as error:
        # The library in Rust behind it raises nothing more special.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageProblem(f"{folder.name}: the tokenizer's files cannot be read ({reason}); fetch them again") from error


def _require_package(folder: Path) -> None:
    """Raises EnvironmentProblem where a tokenizer is in a file alone that a package reads which is not installed."""
    path = folder / SENTENCEPIECE_FILE
    if (folder / "tokenizer.json").exists() or not path.is_file():
        return
    with path.open("rb") as content:
        package = "sentencepiece" if content.read(1) == SENTENCEPIECE_START else "tiktoken"
    if importlib.util.find_spec(package) is None:
        raise EnvironmentProblem(
            f"{folder.name}/{path.name}: only the package {package} reads it, which is not installed; pip install {package}, "
            "or put the tokenizer's tokenizer.json beside it"
        )


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files, byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())


def load_truncated_backbone(
    folder: Path,
    *,
    layer: int,
    dtype: torch.dtype,
    attention: str = "sdpa",
    keep_final_norm: bool = False,
    device: torch.device = CPU,
) -> PreTrainedModel:
    """The first `layer` blocks of a causal LM, base model or reward model, in `dtype` on `device`; deeper blocks are never read.

    Raises UsageProblem for a layer beyond the model or for missing and wrongly shaped tensors.
    """
    config, raw = load_config(folder), read_settings(folder / "config.json")
    model = empty_backbone(
        config, layer, dtype=dtype, attention=attention, keep_final_norm=keep_final_norm, what=folder.name, raw=raw
    )
    source = TensorFolder(folder)
    prefix, embeddings = _embeddings(source, tied=bool(config.tie_word_embeddings), what=folder.name)
    names = {name: prefix + name for name in model.state_dict()} | {"embed_tokens.weight": embeddings}
    fill(model, source, names, what=folder.name, device=device)
    _refuse_unread(source, set(names.values()), prefix=prefix, model=model, what=folder.name)
    return model.eval()


def _embeddings(source: TensorFolder, *, tied: bool, what: str) -> tuple[str, str]:
    """The prefix of a decoder's tensors, and the name under which its embeddings stand.

    Where the head is `tied` to them, the two are one tensor, and safetensors' `save_model` keeps the first name by the alphabet.
    Raises UsageProblem for tensors that are those of no decoder.
    """
    for prefix in ("model.", "", "model.language_model."):
        if f"{prefix}embed_tokens.weight" in source.names:
            return prefix, f"{prefix}embed_tokens.weight"
        if tied and HEAD in source.names and any(name.startswith(f"{prefix}layers.") for name in source.names):
            return prefix, HEAD
    raise UsageProblem(f"{what}: no tensor 'model.embed_tokens.weight'; is this a decoder in Hugging Face layout?")


def _refuse_unread(source: TensorFolder, read: set[str], *, prefix: str, model: PreTrainedModel, what: str) -> None:
    """Raises UsageProblem for a tensor of the kept part that was not read: a bias that the config does not name, a scale, an adapter.

    Deeper blocks and heads take no part in the hidden states.
    """
    parts = {name for name, _ in model.named_children()}
    left = []
    for name in source.names - read:
        first, _, rest = name.removeprefix(prefix).partition(".")
        number = rest.partition(".")[0]
        deeper = first == "layers" and number.isdecimal() and int(number) >= model.config.num_hidden_layers
        if name.startswith(prefix) and not deeper and (prefix or first in parts):
            left.append(name)
    meaning = "its hidden states would be other than the model's; is config.json that of these weights?"
    refuse_unknown(source, left, layout="decoder", what=what, meaning=meaning, known=known_of(model))


def empty_backbone(
    config: PretrainedConfig,
    layer: int,
    *,
    dtype: torch.dtype,
    what: str,
    raw: Mapping[str, Any] | None = None,
    attention: str = "sdpa",
    keep_final_norm: bool = False,
) -> PreTrainedModel:
    """A truncated backbone whose weights have no storage and will be of `dtype`; `raw` is what its file holds, for messages.

    Raises UsageProblem for a layer beyond the model, and for a value that nobody knows.
    """
    with settings_understood(what, config.to_dict() if raw is None else raw), without_weights():
        try:
            model = truncated_backbone(config, layer, keep_final_norm=keep_final_norm, attention=attention)
        except ValueError as error:
            raise UsageProblem(f"{what}: {error}") from error
    # Deviation: in half precision this rounds the rotary frequencies with the weights, which transformers keeps in float32.
    nn.Module.to(model, dtype)
    return model
