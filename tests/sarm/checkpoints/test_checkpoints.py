"""Weights on disk: what is read, what is refused, and how a refusal names it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import RUN, random_sae, random_sarm, save_authors
from safetensors.torch import load_file, save_file
from tiny import HIDDEN, causal_lm, edit_json, edit_tensors, llama_config, save_backbone
from torch import Tensor
from transformers import AutoModelForSequenceClassification, Gemma2Config, PretrainedConfig, Qwen2Config

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_config, load_tokenizer, load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import import_authors_checkpoint, load_reward_model, save_reward_model
from sarm.checkpoints.saes.files import import_authors_sae, load_sae, save_sae
from sarm.checkpoints.sarm_geometry import geometry_in_config, geometry_in_name
from sarm.job import EnvironmentProblem, JobError, UsageProblem
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel

IDS = torch.tensor([[0, 9, 10, 4, 5], [0, 11, 12, 13, 4]])
LAST = torch.tensor([3, 4])


def rewards(model: RewardModel) -> Tensor:
    with torch.no_grad():
        return model(IDS, LAST).rewards


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


def drop(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    return change


def reshape(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name][:3]

    return change


def add(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = torch.zeros(1)

    return change


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


def test_sae_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    sae = random_sae()
    save_sae(tmp_path, sae, layer=7)
    loaded, geometry = load_sae(tmp_path)
    assert (geometry.layer, geometry.hidden_size, geometry.n_latents, geometry.k, geometry.standardize) == (7, HIDDEN, 24, 4, True)
    assert all(torch.equal(value, sae.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert load_sae(tmp_path, torch.bfloat16)[0].pre_bias.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("latent_bias"), "tensor 'latent_bias' is missing"),
        (reshape("encoder.weight"), r"tensor 'encoder\.weight' has shape \[3, 16\], the geometry asks for \[24, 16\]"),
        (add("threshold"), "unknown tensor 'threshold'"),
    ],
)
def test_wrong_sae_tensor_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    save_sae(tmp_path, random_sae(), layer=1)
    edit_tensors(tmp_path / "sae.safetensors", change)
    with pytest.raises(UsageProblem, match=complaint):
        load_sae(tmp_path)


def test_folder_without_an_sae_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no sae\.json; this is not an SAE artifact"):
        load_sae(tmp_path)
    save_sae(tmp_path, random_sae(), layer=1)
    (tmp_path / "sae.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UsageProblem, match=r"sae\.safetensors: damaged safetensors file"):
        load_sae(tmp_path)


def test_authors_pt_of_plain_tensors_is_imported_with_the_geometry_of_its_name(tmp_path: Path) -> None:
    sae, path = random_sae(), tmp_path / "Llama-3.1-8B-Instruct_sequence_Latent24_Layer16_K4_1B.pt"
    torch.save(sae.state_dict(), path)
    loaded, geometry = import_authors_sae(path)
    assert (geometry.layer, geometry.n_latents, geometry.k) == (16, 24, 4)
    assert torch.equal(loaded.encoder.weight, sae.encoder.weight)
    narrow = shutil.copy(path, tmp_path / "x_Latent25_Layer16_K4_1B.pt")
    with pytest.raises(UsageProblem, match=r"tensor 'latent_bias' has shape \[24\], the geometry asks for \[25\]"):
        import_authors_sae(Path(narrow))
    with pytest.raises(UsageProblem, match="k = 99 must lie between 1 and the width 24"):
        import_authors_sae(Path(shutil.copy(path, tmp_path / "x_Latent24_Layer16_K99_1B.pt")))
    with pytest.raises(UsageProblem, match="the name carries no _Latent<M>_Layer<l>_K<k>_"):
        import_authors_sae(Path(shutil.copy(path, tmp_path / "sae.pt")))


class Malice:
    """A pickle that would run code."""

    ran: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[Any, ...]:
        return Malice.ran.append, ("owned",)


@pytest.mark.parametrize("how", ["torch", "pickle", "number", "garbage"])
def test_pt_that_is_more_than_tensors_is_refused_and_nothing_runs(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x_Latent24_Layer16_K4_1B.pt"
    if how == "torch":
        torch.save({**random_sae().state_dict(), "evil": Malice()}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"evil": Malice()}, protocol=2))
    elif how == "number":
        torch.save({**random_sae().state_dict(), "step": 3}, path)
    else:
        path.write_bytes(b"no weights")
    with pytest.raises(UsageProblem, match="not a file of plain tensors; convert it to safetensors, pickles are not loaded"):
        import_authors_sae(path)
    assert Malice.ran == []


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


NESTED = {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sae_use_sequence_level": True}
CONVENTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "sarm_param": ({"sarm_param": {**NESTED, "sarm_use_activation": True}}, "topk"),
    "sarm_param without activation": ({"sarm_param": {**NESTED, "sarm_use_activation": False}}, "pre_acts"),
    "sarm_param of the older name": ({"sarm_param": {**NESTED, "sarm_use_topk": False}}, "pre_acts"),
    "flat": ({"sae_hidden_state_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_topk": True}, "topk"),
    "flat without topk": ({"sae_hidden_state_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_topk": False}, "pre_acts"),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_authors_geometry_is_read_from_the_config(tmp_path: Path, convention: str) -> None:
    config, latents = CONVENTIONS[convention]
    model = random_sarm(latents)
    loaded = load_reward_model(save_authors(tmp_path / "run", model, config))
    assert isinstance(loaded, SARM) and (loaded.latents, loaded.sae.k, loaded.layer) == (latents, 4, 2)
    assert torch.equal(rewards(loaded), rewards(model))


def test_authors_layer_defaults_to_half_the_blocks() -> None:
    geometry = geometry_in_config({"num_hidden_layers": 32, "sarm_param": {"sae_latent_size": 65536, "sae_k": 192}})
    assert geometry is not None and (geometry.layer, geometry.latents) == (16, "topk")
    assert geometry_in_config({"num_hidden_layers": 32}) is None
    with pytest.raises(UsageProblem, match="sarm_param has no 'sae_k'"):
        geometry_in_config({"num_hidden_layers": 32, "sarm_param": {"sae_latent_size": 65536}})


def test_wotopk_in_a_directory_name_is_not_topk() -> None:
    assert geometry_in_name(RUN.format("TopK")).latents == "topk"
    assert geometry_in_name(RUN.format("woTopK")).latents == "pre_acts"
    with pytest.raises(UsageProblem, match="says neither -SARM-TopK- nor -SARM-woTopK-"):
        geometry_in_name(RUN.format("Other"))
    with pytest.raises(UsageProblem, match=r"no geometry in config.json and no _Latent"):
        geometry_in_name("checkpoint-150")


@pytest.mark.parametrize("part", ["", "checkpoint-150"])
@pytest.mark.parametrize(("name", "latents"), [("TopK", "topk"), ("woTopK", "pre_acts")])
def test_run_whose_name_alone_says_its_geometry_is_imported_once(tmp_path: Path, name: str, latents: str, part: str) -> None:
    model = random_sarm(latents)
    folder = save_authors(tmp_path / RUN.format(name) / part, model, {})
    with pytest.raises(UsageProblem, match=r"no SAE geometry; rewrite it once with sarm\.import_authors_checkpoint"):
        load_reward_model(folder)
    import_authors_checkpoint(folder, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["latents"] == latents
    assert torch.equal(rewards(load_reward_model(tmp_path / "ours")), rewards(model))


def test_geometry_that_does_not_fit_the_tensors_is_refused(tmp_path: Path) -> None:
    config = {"sarm_param": {**NESTED, "sae_latent_size": 32}}
    with pytest.raises(UsageProblem, match=r"run: tensor '.*' has shape \[.*24.*\], the config asks for \[.*32.*\]"):
        load_reward_model(save_authors(tmp_path / "run", random_sarm(), config))
    config = {"sarm_param": {**NESTED, "sae_k": 25}}
    with pytest.raises(JobError, match="k = 25 must lie between 1 and n_latents = 24"):
        load_reward_model(save_authors(tmp_path / "other", random_sarm(), config))


def test_config_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = save_authors(tmp_path / "run", random_sarm(), {"sarm_param": NESTED})
    edit_json(folder / "config.json", model_type="martian")
    with pytest.raises(UsageProblem, match="'martian' is not known to transformers; remote code is never run"):
        load_reward_model(folder)
    edit_json(folder / "config.json", model_type=None)
    assert isinstance(load_reward_model(folder), SARM), "the architecture's name says Llama"
