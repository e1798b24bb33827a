"""A SARM under transformers' Auto classes, without remote code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import HIDDEN, llama_config
from transformers import AutoConfig, AutoModelForSequenceClassification, Gemma2Config, PretrainedConfig

import sarm.reward.hf
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.reward.models import SARM, LinearEncoderRewardModel, RewardModel
from sarm.sae.model import TopKSAE

PAD = 5
ROWS = [[0, 9, 10, 11, 4], [0, 12, 4], [0, 13, 14, 4]]
RIGHT = torch.tensor([row + [PAD] * (5 - len(row)) for row in ROWS])
LEFT = torch.tensor([[PAD] * (5 - len(row)) + row for row in ROWS])
LAST = torch.tensor([len(row) - 1 for row in ROWS])


def build(kind: str = "topk", config: PretrainedConfig | None = None) -> RewardModel:
    torch.manual_seed(0)
    backbone = truncated_backbone(config or llama_config(), 2)
    if kind == "linear":
        return LinearEncoderRewardModel(backbone, hidden_size=HIDDEN, n_latents=24).eval()
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return SARM(backbone, sae, latents="topk" if kind == "topk" else "pre_acts").eval()


def opened(folder: Path, kind: str = "topk", config: PretrainedConfig | None = None) -> tuple[RewardModel, torch.nn.Module]:
    model = build(kind, config)
    save_reward_model(folder, model, encoder="linear" if kind == "linear" else "sae", tokenizer=None)
    return model, AutoModelForSequenceClassification.from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", ["topk", "pre_acts", "linear"])
def test_auto_model_gives_our_rewards_under_right_and_left_padding(tmp_path: Path, kind: str) -> None:
    ours, theirs = opened(tmp_path, kind)
    assert isinstance(theirs, sarm.reward.hf.SarmForSequenceClassification)
    with torch.no_grad():
        expected = ours(RIGHT, LAST).rewards
        for ids in (RIGHT, LEFT):
            mask = (ids != PAD).long()
            torch.testing.assert_close(theirs(input_ids=ids, attention_mask=mask).logits[:, 0], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs(input_ids=RIGHT).logits[:, 0], expected, rtol=1e-5, atol=1e-5)
        embedded = theirs.get_input_embeddings()(RIGHT)
        by_embeddings = theirs(inputs_embeds=embedded, attention_mask=(RIGHT != PAD).long()).logits[:, 0]
        torch.testing.assert_close(by_embeddings, expected, rtol=1e-5, atol=1e-5)


def test_gemma2_sarm_opens_too(tmp_path: Path) -> None:
    shape = {key: getattr(llama_config(), key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    config = Gemma2Config(**shape, num_attention_heads=2, num_key_value_heads=1, head_dim=8, initializer_range=0.3, pad_token_id=PAD)
    ours, theirs = opened(tmp_path, "topk", config)
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=RIGHT).logits[:, 0], ours(RIGHT, LAST).rewards, rtol=1e-5, atol=1e-5)


def test_gradient_flows_into_head_sae_and_blocks(tmp_path: Path) -> None:
    _, theirs = opened(tmp_path)
    output = theirs(input_ids=RIGHT, labels=torch.tensor([1.0, 0.0, -1.0]))
    assert output.loss is not None
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name in ("score.weight", "sae.encoder.weight", "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"):
        assert gradients[name] is not None and gradients[name].any(), name
    assert gradients["sae.decoder.weight"] is None, "the reward does not decode"


def test_save_pretrained_round_trip_keeps_every_number(tmp_path: Path) -> None:
    ours, theirs = opened(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs").eval()
    back = load_reward_model(tmp_path / "theirs")
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(back.state_dict()[name], value), name
    with torch.no_grad():
        assert torch.equal(back(RIGHT, LAST).rewards, ours(RIGHT, LAST).rewards)
    assert AutoConfig.from_pretrained(tmp_path / "theirs").layer == 2


def test_low_precision_load_keeps_the_head_in_float32(tmp_path: Path) -> None:
    opened(tmp_path)
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.score.weight.dtype == torch.float32
    assert half(input_ids=RIGHT).logits.dtype == torch.float32


def test_rows_without_mask_or_pad_token_are_refused(tmp_path: Path) -> None:
    _, theirs = opened(tmp_path)
    theirs.config.pad_token_id = None
    assert theirs(input_ids=RIGHT[:1]).logits.shape == (1, 1)
    with pytest.raises(ValueError, match=r"several rows need an attention_mask or config.pad_token_id"):
        theirs(input_ids=RIGHT)
    with pytest.raises(ValueError, match="without input_ids an attention_mask is needed"):
        theirs(inputs_embeds=torch.zeros(1, 2, HIDDEN))
