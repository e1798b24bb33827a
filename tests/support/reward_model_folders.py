"""A folder of every layout of reward models that can be asked for rewards, with a tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sarm, save_authors
from baseline_checkpoints import CONFIGS, LLAMA3_VOCABULARY, write_checkpoint
from folders import DATA
from foreign_sae_files import write_sae_lens
from tiny import HIDDEN, llama_config, save_backbone, save_word_tokenizer

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.checkpoints.reward_models.sparse_heads import save_head, write_backbone
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel
from sarm.reward.sparse_rm import Activations, Projections, StateHead
from sarm.sae.model import TopKSAE

LLAMA3 = DATA / "tokenizers" / "llama3"
GEOMETRY = {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_activation": True}}


def saved(folder: Path, model: Any) -> Path:
    save_word_tokenizer(folder / "words")
    encoder = "linear" if isinstance(model, LinearEncoderRewardModel) else "sae"
    save_reward_model(folder / "model", model, encoder=encoder, tokenizer=folder / "words")
    return folder / "model"


def dense(folder: Path) -> Path:
    torch.manual_seed(0)
    return saved(folder, DenseRewardModel(truncated_backbone(llama_config(), 2, keep_final_norm=True), hidden_size=HIDDEN))


def linear(folder: Path) -> Path:
    torch.manual_seed(0)
    return saved(folder, LinearEncoderRewardModel(truncated_backbone(llama_config(), 2), hidden_size=HIDDEN, n_latents=24))


def on_an_imported_sae(folder: Path) -> Path:
    torch.manual_seed(0)
    sae = read_foreign_sae(write_sae_lens(folder / "lens", "jumprelu")).sae
    return saved(folder, SARM(truncated_backbone(llama_config(hidden_size=8), 2), sae))


def authors(folder: Path) -> Path:
    model = save_authors(folder / "model", random_sarm(), GEOMETRY)
    save_word_tokenizer(model)
    return model


def with_head(folder: Path, head: StateHead) -> Path:
    """A whole model: a head on two blocks of a backbone."""
    backbone = save_backbone(folder / "backbone")
    (folder / "model").mkdir()
    head.reset(torch.Generator().manual_seed(3))
    save_head(folder / "model", head, layer=2, hidden_size=HIDDEN)
    write_backbone(backbone, folder / "model", layer=2, dtype=torch.float32)
    return folder / "model"


def latent_head(folder: Path, width: int = 0) -> Path:
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=24, k=8)
    sae.reset(torch.Generator().manual_seed(1))
    return with_head(folder, StateHead(Activations(sae, torch.tensor([20, 3, 11, 7, 0, 15])), width=width))


def projecting_head(folder: Path) -> Path:
    return with_head(folder, StateHead(Projections(torch.eye(HIDDEN)[:5], "standardize"), width=4))


def published(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        model = write_checkpoint(folder / "model", name)
        if CONFIGS[name]["vocab_size"] != LLAMA3_VOCABULARY:
            save_word_tokenizer(model)
            return model
        if not LLAMA3.is_dir():
            pytest.skip(f"no Llama-3 tokenizer in {LLAMA3}; set SARM_DATA")
        for file in LLAMA3.iterdir():
            if file.name.startswith("tokenizer") or file.name == "chat_template.jinja":
                shutil.copy(file, model / file.name)
        return model

    return write


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "ours": lambda folder: saved(folder, random_sarm()),
    "ours, all pre-activations": lambda folder: saved(folder, random_sarm("pre_acts")),
    "ours, linear": linear,
    "ours, imported SAE": on_an_imported_sae,
    "authors": authors,
    "classifier": dense,
    "SAFER or linear head on latents": latent_head,
    "SparseRM": projecting_head,
    **{name: published(name) for name in ("classifier-gemma2", "armorm", "qrm-llama3.1", "grm-mlp", "grm-linear", "ldl")},
}
