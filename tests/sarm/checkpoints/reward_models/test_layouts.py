"""Reward models as they are saved and opened again, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sae, random_sarm
from tensor_damage import add, drop, reshape
from tiny import HIDDEN, edit_json, edit_tensors, llama_config, save_backbone
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.job import UsageProblem
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel

IDS = torch.tensor([[0, 9, 10, 4, 5], [0, 11, 12, 13, 4]])
LAST = torch.tensor([3, 4])


def rewards(model: RewardModel) -> Tensor:
    with torch.no_grad():
        return model(IDS, LAST).rewards


@pytest.mark.parametrize("kind", ["topk", "pre_acts", "linear", "dense"])
def test_reward_model_comes_back_with_equal_rewards(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(5)
    config, encoder = llama_config(), {"linear": "linear", "dense": "none"}.get(kind, "sae")
    model: RewardModel
    if kind == "linear":
        model = LinearEncoderRewardModel(truncated_backbone(config, 2), hidden_size=HIDDEN, n_latents=24).eval()
    elif kind == "dense":
        model = DenseRewardModel(truncated_backbone(config, 2, keep_final_norm=True), hidden_size=HIDDEN).eval()
    else:
        model = random_sarm(kind)
    save_reward_model(tmp_path, model, encoder=encoder, tokenizer=None)
    loaded = load_reward_model(tmp_path)
    assert type(loaded) is type(model) and loaded.layer == 2
    assert torch.equal(rewards(loaded), rewards(model))
    half = load_reward_model(tmp_path, dtype=torch.bfloat16)
    assert half.score.weight.dtype == torch.float32 and half.model.dtype == torch.bfloat16


def test_saved_files_name_no_path_of_this_machine(tmp_path: Path) -> None:
    save_backbone(tmp_path / "base")
    backbone = load_truncated_backbone(tmp_path / "base", layer=2, dtype=torch.float32)
    save_reward_model(tmp_path / "saved", SARM(backbone, random_sae()), encoder="sae", tokenizer=tmp_path / "base")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == (tmp_path / "base" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_model_opens_as_a_sequence_classifier_with_equal_logits(tmp_path: Path, dtype: torch.dtype) -> None:
    save_backbone(tmp_path / "base")
    # A backbone published in bfloat16 whose config names no pad token, as Llama 3.1's.
    edit_json(tmp_path / "base" / "config.json", dtype="bfloat16", pad_token_id=None)
    torch.manual_seed(0)
    backbone = load_truncated_backbone(tmp_path / "base", layer=2, dtype=dtype, keep_final_norm=True)
    model = DenseRewardModel(backbone, hidden_size=HIDDEN).eval()
    save_reward_model(tmp_path / "dense", model, encoder="none", tokenizer=tmp_path / "base", pad_id=5)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "dense").eval()
    assert theirs.dtype == dtype and theirs.config.num_labels == 1
    with torch.no_grad():
        logits = theirs(input_ids=IDS, attention_mask=(IDS != 5).long()).logits[:, 0].float()
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    torch.testing.assert_close(logits, rewards(model), **close)


def test_published_sequence_classifier_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_config(llama_config(num_labels=1)).eval()
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(input_ids=IDS, attention_mask=(IDS != 5).long()).logits[:, 0]
    torch.testing.assert_close(rewards(load_reward_model(tmp_path)), expected)


def test_two_labels_are_refused(tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_config(llama_config(num_labels=2)).save_pretrained(tmp_path / "two")
    with pytest.raises(UsageProblem, match="two: 2 labels; a reward model has exactly one"):
        load_reward_model(tmp_path / "two")


def test_language_model_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"lm: no tensor 'score\.weight'; this is not a reward model"):
        load_reward_model(save_backbone(tmp_path / "lm"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("sae.latent_bias"), r"m: tensor 'sae\.latent_bias' is missing"),
        (reshape("sae.latent_bias"), r"m: tensor 'sae\.latent_bias' has shape \[3\], the config asks for \[24\]"),
        (add("sae.scale"), r"m: unknown tensor 'sae\.scale' \(1 in all\)"),
        (add("model.layers.2.mlp.up_proj.weight"), r"m: unknown tensor 'model\.layers\.2\.mlp\.up_proj\.weight'"),
    ],
)
def test_wrong_reward_model_tensor_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    save_reward_model(tmp_path / "m", random_sarm(), encoder="sae", tokenizer=None)
    edit_tensors(tmp_path / "m" / "model.safetensors", change)
    with pytest.raises(UsageProblem, match=complaint):
        load_reward_model(tmp_path / "m")


def test_final_norm_that_is_never_applied_may_be_absent(tmp_path: Path) -> None:
    model = random_sarm()
    save_reward_model(tmp_path, model, encoder="sae", tokenizer=None)
    edit_tensors(tmp_path / "model.safetensors", drop("model.norm.weight"))
    assert torch.equal(rewards(load_reward_model(tmp_path)), rewards(model))
