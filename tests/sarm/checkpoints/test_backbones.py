"""Backbones from disk: cut where they are used, other architectures, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sarm, save_authors
from safetensors.torch import load_file, save_file, save_model
from tensor_damage import drop, reshape
from tiny import causal_lm, edit_json, edit_tensors, llama_config, save_backbone
from transformers import Gemma2Config, PretrainedConfig, Qwen2Config

from sarm.checkpoints.backbones import load_config, load_tokenizer, load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.models import SARM

IDS = torch.tensor([[0, 9, 10, 4, 5], [0, 11, 12, 13, 4]])


def test_truncated_backbone_equals_the_full_model_cut(tmp_path: Path) -> None:
    save_backbone(tmp_path / "full")
    full = causal_lm(llama_config())
    cut = load_truncated_backbone(tmp_path / "full", layer=3, dtype=torch.float32)
    assert len(cut.layers) == 3 and not cut.training
    with torch.no_grad():
        expected = full(input_ids=IDS, output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(cut(input_ids=IDS).last_hidden_state, expected)
    assert torch.equal(cut.norm.weight, full.model.norm.weight)


@pytest.mark.parametrize("config_type", [Gemma2Config, Qwen2Config])
def test_other_architectures_load_from_disk(tmp_path: Path, config_type: type[PretrainedConfig]) -> None:
    shape = {key: getattr(llama_config(), key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    full = causal_lm(config_type(**shape, num_attention_heads=2, num_key_value_heads=1, head_dim=8, initializer_range=0.3))
    full.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = full(input_ids=IDS, output_hidden_states=True).hidden_states[2]
        cut = load_truncated_backbone(tmp_path, layer=2, dtype=torch.float32)
        torch.testing.assert_close(cut(input_ids=IDS).last_hidden_state, expected)


def test_deeper_shards_are_never_read(tmp_path: Path) -> None:
    save_backbone(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    deep = {name for name in tensors if name.startswith(("model.layers.2.", "model.layers.3.", "lm_head"))}
    save_file({name: tensors[name] for name in set(tensors) - deep}, tmp_path / "model-00001-of-00002.safetensors")
    files = {name: f"model-0000{2 if name in deep else 1}-of-00002.safetensors" for name in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (tmp_path / "model.safetensors").unlink()
    cut = load_truncated_backbone(tmp_path, layer=2, dtype=torch.bfloat16)
    assert cut.dtype == torch.bfloat16
    torch.testing.assert_close(cut.layers[1].mlp.up_proj.weight, tensors["model.layers.1.mlp.up_proj.weight"].bfloat16())
    with pytest.raises(EnvironmentProblem, match=r"model-00002-of-00002\.safetensors: the index names it but it is missing"):
        load_truncated_backbone(tmp_path, layer=3, dtype=torch.float32)
    (tmp_path / "model-00002-of-00002.safetensors").mkdir()
    with pytest.raises(EnvironmentProblem, match=r"model-00002-of-00002\.safetensors: the index names it but it is no file"):
        load_truncated_backbone(tmp_path, layer=3, dtype=torch.float32)


def test_layer_beyond_the_model_is_refused(tmp_path: Path) -> None:
    save_backbone(tmp_path / "tiny")
    with pytest.raises(UsageProblem, match="tiny: layer 9 does not exist: the model has 4 blocks; choose 1 to 4"):
        load_truncated_backbone(tmp_path / "tiny", layer=9, dtype=torch.float32)


def test_folder_with_pickles_only_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for load in (lambda: load_truncated_backbone(folder, layer=1, dtype=torch.float32), lambda: load_reward_model(folder)):
        with pytest.raises(
            UsageProblem, match=r"^old: only pickled weights \(pytorch_model\.bin\); convert them to safetensors"
        ) as refusal:
            load()
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("model.layers.0.mlp.up_proj.weight"), r"m: tensor 'model\.layers\.0\.mlp\.up_proj\.weight' is missing \(1 in all\)"),
        (reshape("model.layers.0.mlp.up_proj.weight"), r"up_proj\.weight' has shape \[3, 16\], the config asks for \[24, 16\]"),
        (drop("model.embed_tokens.weight"), "no tensor 'model.embed_tokens.weight'; is this a decoder"),
    ],
)
def test_wrong_backbone_tensor_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    save_backbone(tmp_path / "m")
    edit_tensors(tmp_path / "m" / "model.safetensors", change)
    with pytest.raises(UsageProblem, match=complaint):
        load_truncated_backbone(tmp_path / "m", layer=2, dtype=torch.float32)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_backbone(tmp_path / "m")
    whole = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageProblem, match=r"m/model\.safetensors: not a safetensors file .*; fetch it again"):
        load_truncated_backbone(tmp_path / "m", layer=2, dtype=torch.float32)


def test_missing_parts_of_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"gone: no config\.json"):
        load_config(tmp_path / "gone")
    with pytest.raises(EnvironmentProblem, match="no tokenizer files; copy the tokenizer beside the weights"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "martian", "auto_map": {"AutoConfig": "code.Config"}}))
    with pytest.raises(
        UsageProblem, match=r"'martian' is not known to transformers .its auto_map asks for remote code, which is never run"
    ):
        load_config(tmp_path)


def test_config_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = save_authors(tmp_path / "run", random_sarm(), {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4}})
    edit_json(folder / "config.json", model_type="martian")
    with pytest.raises(UsageProblem, match="'martian' is not known to transformers; remote code is never run"):
        load_reward_model(folder)
    edit_json(folder / "config.json", model_type=None)
    assert isinstance(load_reward_model(folder), SARM), "the architecture's name says Llama"


ROPE = {"factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"hidden_act": "foo"}, "hidden_act = 'foo' is not known here"),
        ({"rope_scaling": {"type": "su", **ROPE}}, r"rope_scaling\.type = 'su' is not known here"),
        ({"rope_scaling": {"rope_type": "su", **ROPE}}, r"rope_scaling\.rope_type = 'su' is not known here"),
        ({"rope_parameters": {"rope_type": "su", **ROPE}}, r"rope_parameters\.rope_type = 'su' is not known here"),
        ({"rope_parameters": {"rope_type": "yarn"}}, r"a value cannot be understood \(Missing required keys"),
    ],
)
def test_a_value_that_the_library_does_not_know_is_named_with_its_key(tmp_path: Path, keys: dict[str, Any], named: str) -> None:
    folder = save_backbone(tmp_path / "m")
    edit_json(folder / "config.json", rope_parameters=None)
    edit_json(folder / "config.json", **keys)
    with pytest.raises(UsageProblem, match=rf"^m/config\.json: {named}.*; mend it or fetch it again$"):
        load_truncated_backbone(folder, layer=1, dtype=torch.float32)


def test_a_sarms_value_that_the_library_does_not_know_is_named(tmp_path: Path) -> None:
    folder = save_authors(tmp_path / "run", random_sarm(), {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4}})
    edit_json(folder / "config.json", hidden_act="foo")
    with pytest.raises(UsageProblem, match=r"^run/config\.json: hidden_act = 'foo' is not known here"):
        load_reward_model(folder)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_tied_embeddings_are_read_from_the_head_that_alone_was_saved(tmp_path: Path, prefix: str) -> None:
    model = causal_lm(llama_config(tie_word_embeddings=True))
    model.config.save_pretrained(tmp_path)
    save_model(model, str(tmp_path / "model.safetensors"))
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" in tensors and "model.embed_tokens.weight" not in tensors
    save_file({name.replace("model.", prefix, 1): tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    found = load_truncated_backbone(tmp_path, layer=1, dtype=torch.float32)
    assert torch.equal(found.embed_tokens.weight, model.model.embed_tokens.weight)
    for tied in (False, None):
        edit_json(tmp_path / "config.json", tie_word_embeddings=tied)
        with pytest.raises(UsageProblem, match=r"no tensor 'model\.embed_tokens\.weight'; is this a decoder"):
            load_truncated_backbone(tmp_path, layer=1, dtype=torch.float32)
