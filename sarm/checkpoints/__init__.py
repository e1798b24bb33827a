"""Weights on disk: safetensors only, one file per published layout."""

from sarm.checkpoints.backbone import copy_tokenizer, load_config, load_tokenizer, load_truncated_backbone
from sarm.checkpoints.reward_models import EPOCHS, import_authors_checkpoint, load_reward_model, save_reward_model
from sarm.checkpoints.sae_files import SAEGeometry, import_authors_sae, load_sae, sae_of_checkpoint, save_sae

__all__ = [
    "EPOCHS",
    "SAEGeometry",
    "copy_tokenizer",
    "import_authors_checkpoint",
    "import_authors_sae",
    "load_config",
    "load_reward_model",
    "load_sae",
    "load_tokenizer",
    "load_truncated_backbone",
    "sae_of_checkpoint",
    "save_reward_model",
    "save_sae",
]
