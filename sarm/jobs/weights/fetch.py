"""A backbone's weights and tokenizer, from the hub at a pinned revision or from a local folder, with the tokenizer made usable.

Writes a model in Hugging Face layout; from a hub also `hub.json` (checksums).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import torch

from sarm.checkpoints.backbones import TOKENIZER_FILES, load_tokenizer
from sarm.checkpoints.config_files import ADAPTER, read_model_settings, read_settings
from sarm.checkpoints.hub import CACHE, download, write_record
from sarm.checkpoints.loading import place_in
from sarm.checkpoints.quantized import refuse_other_numbers, refuse_quantized_names
from sarm.checkpoints.reward_models.layouts import OUR_TYPES
from sarm.checkpoints.sarm_geometry import keep_geometry
from sarm.checkpoints.tensors import INDEX, TensorFolder, rewrite_tensor_file
from sarm.config.weights import WeightsConfig
from sarm.job import EnvironmentProblem, JobContext, UsageProblem
from sarm.store.json_files import place_of

# LDL-Reward keeps two heads in tensors-only files of their own.
HEAD_FILES = ("regression_layer.pt", "gating_layer.pt")
WEIGHTS = "*.safetensors"
SMALL_FILES = ("config.json", ADAPTER, "generation_config.json", INDEX, *TOKENIZER_FILES, *HEAD_FILES)
PATTERNS = (*SMALL_FILES, WEIGHTS)
COPIED_AT_ONCE = 1 << 30
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "lm_head.weight")


def fetch_weights(config: WeightsConfig, context: JobContext) -> None:
    """Bring the files into the output folder, with chat template, end of turn, pad and added tokens as the config has them.

    A folder's files are copied, so that the artifact stays what it is when its owner edits them in place.
    Raises EnvironmentProblem when the hub cannot be reached, the model is gated or absent, or a folder is missing;
    IntegrityProblem for a file that is not what the hub says; UsageProblem for pickled or quantised weights or an unknown token.
    """
    source = context.output
    if config.origin == "hub":
        _download(config, context.output)
    else:
        source = context.locations["source"]
        _take_small_files(source, context.output)
    # Said here and not at the first use: a folder with nothing but pickles must not become an artifact.
    weights = TensorFolder(source)
    raw = read_model_settings(context.output)
    refuse_quantized_names(weights.names, lambda name: place_in(weights, name, source.name))
    if config.origin == "folder" and "sae.encoder.weight" in weights.names and raw.get("model_type") not in OUR_TYPES:
        keep_geometry(context.output, source)
    rows = _adapt_tokenizer(config, context.output, weights)
    _bring_weights(source, context.output, rows=rows)


def _download(config: WeightsConfig, output: Path) -> None:
    write_record(output, download(config.repository, config.revision, output, what="model", patterns=PATTERNS))
    shutil.rmtree(output / CACHE, ignore_errors=True)


def _take_small_files(source: Path, output: Path) -> None:
    if not (source / "config.json").exists():
        raise EnvironmentProblem(f"{source.name}: no model folder with a config.json there; correct backbones.<slot>.source in the profile")
    if not list(source.glob(WEIGHTS)):
        pickles = sorted(path.name for path in source.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        raise UsageProblem(f"{source.name}: no safetensors file{f', only {pickles[0]}' if pickles else ''}; pickles are not loaded")
    for pattern in SMALL_FILES:
        for path in sorted(source.glob(pattern)):
            copy_file(path, output / path.name)


def _bring_weights(source: Path, output: Path, *, rows: int) -> None:
    """The weights' files, the embeddings among them with so many rows (0: as they are); nothing else of them is read."""
    for path in sorted(source.glob(WEIGHTS)):
        grown = _grown_embeddings(path, rows) if rows else {}
        if grown:
            rewrite_tensor_file(path, output / path.name, grown)
        elif source != output:
            copy_file(path, output / path.name)
    if rows:
        path = output / "config.json"
        raw = read_settings(path)
        raw["vocab_size"] = rows
        path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def copy_file(source: Path, target: Path) -> None:
    """The bytes of `source` in a file of its own, replaced where it is there.

    The kernel does it, and where the file system can, both share the disk until one of them changes.
    """
    target.unlink(missing_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        # Not on every system, nor between any two file systems.
        with contextlib.suppress(AttributeError, OSError):
            while os.copy_file_range(old.fileno(), new.fileno(), COPIED_AT_ONCE):
                pass
        whole = new.seek(0, os.SEEK_END) == os.fstat(old.fileno()).st_size
    if not whole:
        shutil.copyfile(source, target)


def _adapt_tokenizer(config: WeightsConfig, output: Path, weights: TensorFolder) -> int:
    """Rows that the embeddings need for the tokens that were added; 0 where they have enough."""
    if not (config.chat_template or config.add_tokens or config.pad_token or config.end_of_turn):
        return 0
    tokenizer = load_tokenizer(output)
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
    path = output / "config.json"
    raw = read_settings(path)
    raw.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    return len(tokenizer) if len(tokenizer) > _embedding_rows(weights) else 0


def _embedding_rows(weights: TensorFolder) -> int:
    name = next((name for name in EMBEDDINGS if name in weights.names), None)
    if name is None:
        raise UsageProblem("the weights have no embed_tokens.weight; is this a decoder in Hugging Face layout?")
    return len(weights.tensor(name))


def _grown_embeddings(path: Path, rows: int) -> dict[str, torch.Tensor]:
    """Embeddings and language-model head of a file with added rows, each the mean of the old ones."""
    weights = TensorFolder(path)
    grown = {}
    for name in sorted(weights.names & set(EMBEDDINGS)):
        old = weights.tensor(name)
        refuse_other_numbers(old, name=name, where=place_of(path))
        mean = old.float().mean(dim=0, keepdim=True).to(old.dtype)
        grown[name] = torch.cat([old, mean.expand(rows - len(old), -1)])
    return grown
