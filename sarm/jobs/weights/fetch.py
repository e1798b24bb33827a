"""A backbone's weights and tokenizer, from the hub at a pinned revision or from a local folder, with the tokenizer made usable.

Writes a model in Hugging Face layout; from a hub also `hub.json` (checksums).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sarm.checkpoints.backbones import TOKENIZER_FILES, load_tokenizer
from sarm.checkpoints.hub import CACHE, download, write_record
from sarm.checkpoints.reward_models.layouts import OUR_TYPES
from sarm.checkpoints.sarm_geometry import keep_geometry
from sarm.checkpoints.tensors import INDEX, TensorFolder
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, JobContext, UsageProblem

# LDL-Reward keeps two heads in tensors-only files of their own.
HEAD_FILES = ("regression_layer.pt", "gating_layer.pt")
PATTERNS = ("config.json", "generation_config.json", "*.safetensors", INDEX, *TOKENIZER_FILES, *HEAD_FILES)
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "lm_head.weight")


def fetch_weights(config: WeightsConfig, context: JobContext) -> None:
    """Bring the files into the output folder, then set chat template, end of turn, pad and added tokens.

    Raises EnvironmentProblem when the hub cannot be reached, the model is gated or absent, or a folder is missing;
    IntegrityProblem for a file that is not what the hub says; UsageProblem for pickled weights or an unknown token.
    """
    if config.origin == "hub":
        _download(config, context.output)
    else:
        _copy(context.locations["source"], context.output)
    # Said here and not at the first use: a folder with nothing but pickles must not become an artifact.
    names = TensorFolder(context.output).names
    raw = json.loads((context.output / "config.json").read_text(encoding="utf-8"))
    if config.origin == "folder" and "sae.encoder.weight" in names and raw.get("model_type") not in OUR_TYPES:
        keep_geometry(context.output, context.locations["source"])
    _adapt_tokenizer(config, context.output)


def _download(config: WeightsConfig, output: Path) -> None:
    write_record(output, download(config.repository, config.revision, output, what="model", patterns=PATTERNS))
    shutil.rmtree(output / CACHE, ignore_errors=True)


def _copy(source: Path, output: Path) -> None:
    if not (source / "config.json").exists():
        raise EnvironmentProblem(f"{source.name}: no model folder with a config.json there; correct backbones.<slot>.source in the profile")
    for pattern in PATTERNS:
        for path in sorted(source.glob(pattern)):
            target = output / path.name
            target.unlink(missing_ok=True)
            try:
                os.link(path.resolve(), target)
            except OSError:
                shutil.copyfile(path, target)
    if not list(output.glob("*.safetensors")):
        pickles = sorted(path.name for path in source.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        raise UsageProblem(f"{source.name}: no safetensors file{f', only {pickles[0]}' if pickles else ''}; pickles are not loaded")


def _adapt_tokenizer(config: WeightsConfig, output: Path) -> None:
    if not (config.chat_template or config.add_tokens or config.pad_token or config.end_of_turn):
        return
    tokenizer = load_tokenizer(output)
    rows = len(_first_embedding(output))
    new = [*config.add_tokens, *([config.pad_token] if config.pad_token and config.pad_token not in tokenizer.get_vocab() else [])]
    if new:
        tokenizer.add_special_tokens({"additional_special_tokens": new})
    for role, token in (("eos_token", config.end_of_turn), ("pad_token", config.pad_token)):
        if token:
            if token not in tokenizer.get_vocab():
                raise UsageProblem(f"the tokenizer has no token {token!r} for {role}; name it in add_tokens")
            setattr(tokenizer, role, token)
    if config.chat_template:
        tokenizer.chat_template = config.chat_template
    for name in TOKENIZER_FILES:
        (output / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(output)
    _write_token_ids(output, tokenizer)
    if len(tokenizer) > rows:
        _grow_embeddings(output, len(tokenizer))


def _first_embedding(output: Path) -> torch.Tensor:
    found: dict[str, torch.Tensor] = {}
    source = TensorFolder(output)
    name = next((name for name in EMBEDDINGS if name in source.names), None)
    if name is None:
        raise UsageProblem("the weights have no embed_tokens.weight; is this a decoder in Hugging Face layout?")
    source.read([(name, name)], found.__setitem__)
    return found[name]


def _write_token_ids(output: Path, tokenizer: Any) -> None:
    path = output / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    _replace(path, json.dumps(raw, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write anew: the old file may be a hard link to the user's own."""
    path.unlink()
    path.write_text(text, encoding="utf-8")


def _grow_embeddings(output: Path, rows: int) -> None:
    """Add rows to embeddings and language-model head, each the mean of the old ones; the file is written anew."""
    for path in sorted(output.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            if not set(tensors.keys()) & set(EMBEDDINGS):
                continue
        loaded = load_file(path)
        for name in set(loaded) & set(EMBEDDINGS):
            old = loaded[name]
            mean = old.float().mean(dim=0, keepdim=True).to(old.dtype)
            loaded[name] = torch.cat([old, mean.expand(rows - len(old), -1)]).contiguous()
        path.unlink()
        save_file(loaded, path, metadata={"format": "pt"})
    path = output / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["vocab_size"] = rows
    _replace(path, json.dumps(raw, indent=1) + "\n")
