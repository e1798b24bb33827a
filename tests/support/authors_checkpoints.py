"""Random SARMs, and the folders in which the authors' code would have saved them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny import HIDDEN, llama_config

from sarm.backbone.decoder import truncated_backbone
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

RUN = "Llama-3.1-8B-Instruct_token_Latent24_Layer2_K4_1B-SARM-{}-LastToken-1"


def random_sae(n_latents: int = 24, k: int = 4) -> TopKSAE:
    torch.manual_seed(1)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=n_latents, k=k)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return sae


def random_sarm(latents: str = "topk") -> SARM:
    torch.manual_seed(2)
    return SARM(truncated_backbone(llama_config(), 2), random_sae(), latents=latents).eval()


def save_authors(folder: Path, model: SARM, config: dict[str, Any]) -> Path:
    """The authors' layout: a Llama config with SAE keys, our tensor names."""
    folder.mkdir(parents=True)
    raw = {**llama_config(num_hidden_layers=2).to_dict(), "architectures": ["LlamaSARM"], **config}
    (folder / "config.json").write_text(json.dumps(raw))
    save_file({name: value.contiguous().clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder
