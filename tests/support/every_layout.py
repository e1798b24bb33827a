"""A tiny checkpoint of every layout that can be loaded, each with the call that loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import baseline_checkpoints
import foreign_sae_files
import torch
from authors_checkpoints import random_sae, random_sarm, save_authors
from tiny import HIDDEN, causal_lm, edit_tensors, llama_config, save_backbone
from torch import nn
from transformers import Gemma2Config, Qwen3Config

from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.reward_models.sparse_heads import load_head, save_head, write_backbone
from sarm.checkpoints.saes.files import import_authors_sae, load_sae, sae_of_checkpoint, save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae, save_sparse_encoder
from sarm.checkpoints.saes.imported import ImportedSAE
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel
from sarm.reward.sparse_rm import Activations, Dense, Projections, StateHead

Load = Callable[[], nn.Module]
GEOMETRY = {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4}}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def every_layout(folder: Path, *, dtype: torch.dtype = torch.float32) -> dict[str, Load]:
    """By name; those of SAEs of other projects and of `.pt` files come in the precision of their files whatever `dtype` says."""
    backbones = _backbones(folder / "backbones")
    found: dict[str, Load] = {
        f"backbone {name}": lambda path=path: load_truncated_backbone(path, layer=2, dtype=dtype) for name, path in backbones.items()
    }
    models = {**_reward_models(folder / "models", backbones["llama"]), **_published(folder / "published")}
    found |= {f"reward model {name}": lambda path=path: load_reward_model(path, dtype=dtype) for name, path in models.items()}
    found |= _heads(folder / "heads")
    return {**found, **_saes(folder / "saes", models["authors"], dtype)}


def _backbones(folder: Path) -> dict[str, Path]:
    shape = {key: getattr(llama_config(), key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    found = {
        "llama": save_backbone(folder / "llama"),
        "tied": save_backbone(folder / "tied", tie_word_embeddings=True),
        "llama3": save_backbone(folder / "llama3", rope_parameters=LLAMA3_ROTARY),
    }
    for name, kind in {"gemma2": Gemma2Config, "qwen3": Qwen3Config}.items():
        causal_lm(kind(**shape, num_attention_heads=2, num_key_value_heads=1, head_dim=8)).save_pretrained(folder / name)
        found[name] = folder / name
    return found


def _published(folder: Path) -> dict[str, Path]:
    return {name: baseline_checkpoints.write_checkpoint(folder / name, name) for name in baseline_checkpoints.CONFIGS}


def _reward_models(folder: Path, backbone: Path) -> dict[str, Path]:
    found = {"authors": save_authors(folder / "authors", random_sarm(), GEOMETRY)}
    found["authors without norm"] = save_authors(folder / "no-norm", random_sarm(), GEOMETRY)
    edit_tensors(found["authors without norm"] / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    imported = read_foreign_sae(foreign_sae_files.write_sae_lens(folder / "lens", "jumprelu")).sae

    def cut(*, norm: bool = False) -> nn.Module:
        return load_truncated_backbone(backbone, layer=2, dtype=torch.float32, keep_final_norm=norm)

    narrow = save_backbone(folder / "narrow", hidden_size=imported.hidden_size)
    ours = {
        "sae": SARM(cut(), random_sae()),
        "linear": LinearEncoderRewardModel(cut(), hidden_size=HIDDEN, n_latents=24),
        "none": DenseRewardModel(cut(norm=True), hidden_size=HIDDEN),
        "imported": SARM(load_truncated_backbone(narrow, layer=2, dtype=torch.float32), imported),
    }
    for name, model in ours.items():
        save_reward_model(folder / name, model, encoder="linear" if name == "linear" else "sae", tokenizer=None)
        found[name] = folder / name
    (folder / "sparse").mkdir()
    save_head(folder / "sparse", _head("projections"), layer=2, hidden_size=HIDDEN)
    write_backbone(backbone, folder / "sparse", layer=2, dtype=torch.float32)
    return {**found, "sparse": folder / "sparse"}


def _head(inputs: str) -> StateHead:
    readers = {
        "projections": lambda: Projections(torch.randn(6, HIDDEN), "standardize"),
        "activations": lambda: Activations(random_sae(), torch.tensor([3, 1, 7])),
        "dense": lambda: Dense(HIDDEN, "none"),
    }
    return StateHead(readers[inputs](), width=5)


def _heads(folder: Path) -> dict[str, Load]:
    found: dict[str, Load] = {}
    for inputs in ("projections", "activations", "dense"):
        place = folder / inputs
        place.mkdir(parents=True)
        save_head(place, _head(inputs), layer=2, hidden_size=HIDDEN)
        found[f"head {inputs}"] = lambda place=place: load_head(place)[0]
    return found


def _saes(folder: Path, checkpoint: Path, dtype: torch.dtype) -> dict[str, Load]:
    (folder / "own").mkdir(parents=True)
    save_sae(folder / "own", random_sae(), layer=2)
    file = folder / "Llama_token_Latent24_Layer2_K4_1B.pt"
    torch.save(dict(random_sae().state_dict()), file)
    older = folder / "older_Latent24_Layer2_K4_.pt"
    torch.save(dict(random_sae().state_dict()), older, _use_new_zipfile_serialization=False)
    found: dict[str, Load] = {
        "sae own": lambda: load_sae(folder / "own", dtype)[0],
        "sae authors": lambda: import_authors_sae(file)[0],
        "sae authors, torch's older format": lambda: import_authors_sae(older)[0],
        "sae in a reward model": lambda: sae_of_checkpoint(checkpoint)[0],
    }
    for name, path in foreign_sae_files.every_layout(folder / "foreign").items():
        found[f"sae {name}"] = lambda path=path: read_foreign_sae(path).sae
        kept = folder / "kept" / name
        save_sparse_encoder(kept, ImportedSAE(read_foreign_sae(path).sae, 3, "any"))
        found[f"sae kept {name}"] = lambda kept=kept: load_sae(kept, dtype)[0]
    return found
