"""The two trainings at tiny size, on any device: what they read, and one run of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny import HIDDEN, TEXTS, Stop, job_context, learnable_pairs, save_backbone, write_corpus, write_rows

from sarm.checkpoints.saes.files import save_sae
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.jobs.train.reward import train_reward
from sarm.jobs.train.sae import train_sae
from sarm.sae.model import TopKSAE

# Heads of 8, the narrowest that torch's kernel for packed sequences takes.
PAIRS = 24


def write_inputs(folder: Path) -> dict[str, Path]:
    """A backbone, a corpus, pairs and an SAE."""
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=32, k=4)
    sae.reset(torch.Generator().manual_seed(0))
    sae.normalize_decoder()
    (folder / "sae").mkdir()
    save_sae(folder / "sae", sae, layer=2)
    return {
        "backbone": save_backbone(folder / "backbone"),
        "sae": folder / "sae",
        "corpus": write_corpus(folder / "corpus", TEXTS, times=50),
        "preferences": write_rows(folder / "preferences", "train.jsonl", learnable_pairs(PAIRS)),
    }


def reward(folder: Path, inputs: dict[str, Path], device: torch.device, *, stop: Stop | None = None, **changes: Any) -> Path:
    """Train a reward model on the device; gives its output folder."""
    values = {"layer": 2, "batch_pairs": 4, "epochs": 2, "learning_rate": 1e-3, "max_length": 64, "head_init": "normal", **changes}
    context = job_context(folder, inputs=inputs, stop=stop, threads=1, gpus=int(device.type == "cuda"))
    train_reward(RewardTrainingConfig.model_validate(values), context)
    return context.output


def sae(folder: Path, inputs: dict[str, Path], device: torch.device, *, stop: Stop | None = None, **changes: Any) -> Path:
    """Train an SAE on the device; gives its output folder."""
    sizes = {"n_latents": 32, "k": 4, "vectors": 320, "batch_vectors": 16, "buffer_vectors": 128, "held_out_vectors": 40}
    context = job_context(folder, inputs=inputs, stop=stop, threads=1, gpus=int(device.type == "cuda"))
    train_sae(SAETrainingConfig.model_validate({"layer": 2, **sizes, "learning_rate": 1e-3, **changes}), context)
    return context.output
