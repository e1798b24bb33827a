"""Keys of other projects' settings: one that would change a number is refused or told by name, and what real files hold passes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sarm, save_authors
from foreign_sae_files import (
    HIDDEN,
    LATENTS,
    K,
    every_layout,
    inputs,
    write_dictionary,
    write_llama_scope,
    write_sae_lens,
    write_sparsify,
)
from tiny import edit_json

from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.files import load_sae, save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.checkpoints.sarm_geometry import geometry_in_config
from sarm.job import UsageProblem

Write = Callable[[Path], Path]
WRITERS: dict[str, tuple[Write, str]] = {
    "sparsify": (write_sparsify, "cfg.json"),
    "lens-topk": (lambda folder: write_sae_lens(folder, "topk"), "cfg.json"),
    "lens-standard": (lambda folder: write_sae_lens(folder, "standard"), "cfg.json"),
    "lens-before-6": (lambda folder: write_sae_lens(folder, "topk-before-6"), "cfg.json"),
    "dictionary": (lambda folder: write_dictionary(folder, "AutoEncoderTopK"), "config.json"),
    "llama-scope": (lambda folder: write_llama_scope(folder, "topk"), "hyperparams.json"),
}
TRAINER = {"dict_class": "AutoEncoderTopK", "layer": 3, "submodule_name": "resid_post_layer_3", "k": K}


def written(layout: str, folder: Path, **keys: Any) -> Path:
    """The SAE of a layout with some keys of its settings changed."""
    write, file = WRITERS[layout]
    place = write(folder / "layers.3")
    edit_json(place / file, **keys)
    return place


@pytest.mark.parametrize("name", ["signed", "normalize_io", "embed_skip", "input_unit_norm", "batch_topk", "sample_topk", "jumprelu"])
@pytest.mark.parametrize("on", [True, "yes", 1])
def test_a_sparsify_key_that_changes_latents_is_refused_by_name(name: str, on: object, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=rf"^layers\.3/cfg\.json: {name} = .* changes what is computed"):
        read_foreign_sae(written("sparsify", tmp_path, **{name: on}))


OFF: list[dict[str, Any]] = [
    {"signed": False, "normalize_io": False},
    {"coalesce_topk": "none", "architecture": "topk", "multi_topk": True},
]


@pytest.mark.parametrize("keys", OFF)
def test_old_keys_that_are_off_change_nothing(keys: dict[str, Any], tmp_path: Path) -> None:
    plain, old = (read_foreign_sae(written("sparsify", tmp_path / str(n), **more)).sae for n, more in enumerate([{}, keys]))
    assert torch.equal(plain.encode(inputs()).latents, old.encode(inputs()).latents)


@pytest.mark.parametrize(
    ("layout", "keys", "named"),
    [
        ("sparsify", {"d_in": 99}, "d_in = 99, and the tensors have 8"),
        ("sparsify", {"num_latents": 11}, "num_latents = 11, and the tensors have 24"),
        ("sparsify", {"expansion_factor": 4}, "num_latents = 32, and the tensors have 24"),
        ("lens-topk", {"d_in": 99}, "d_in = 99, and the tensors have 8"),
        ("lens-standard", {"d_sae": 11}, "d_sae = 11, and the tensors have 24"),
        ("lens-before-6", {"d_out": 12}, "d_out = 12, and the tensors have 8"),
        ("dictionary", {"trainer": {**TRAINER, "activation_dim": 99}}, "activation_dim = 99, and the tensors have 8"),
        ("dictionary", {"trainer": {**TRAINER, "dict_size": 11}}, "dict_size = 11, and the tensors have 24"),
        ("llama-scope", {"d_model": 99}, "d_model = 99, and the tensors have 8"),
        ("llama-scope", {"d_sae": 11}, "d_sae = 11, and the tensors have 24"),
    ],
)
def test_a_size_in_settings_is_that_of_the_tensors(layout: str, keys: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=rf"^layers\.3/{WRITERS[layout][1]}: .*{named}; one of the two files"):
        read_foreign_sae(written(layout, tmp_path, **keys))


@pytest.mark.parametrize("value", [3.7, True, "4", [4]])
@pytest.mark.parametrize(
    ("layout", "keys", "named"),
    [
        ("sparsify", lambda k: {"k": k}, "k"),
        ("lens-topk", lambda k: {"k": k}, "k"),
        ("lens-before-6", lambda k: {"activation_fn_kwargs": {"k": k}}, r"activation_fn_kwargs\.k"),
        ("dictionary", lambda k: {"trainer": {**TRAINER, "k": k}}, r"trainer\.k"),
        ("llama-scope", lambda k: {"top_k": k}, "top_k"),
    ],
)
def test_k_is_a_whole_number(layout: str, keys: Callable[[Any], dict[str, Any]], named: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=rf"^layers\.3/{WRITERS[layout][1]}: {named} = .* must be a whole number"):
        read_foreign_sae(written(layout, tmp_path, **keys(value)))


@pytest.mark.parametrize("value", ["false", "true", 0, 1])
@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ("sparsify", "transcode"),
        ("lens-topk", "apply_b_dec_to_input"),
        ("lens-topk", "rescale_acts_by_decoder_norm"),
        ("llama-scope", "use_decoder_bias"),
        ("llama-scope", "sparsity_include_decoder_norm"),
        ("llama-scope", "use_glu_encoder"),
    ],
)
def test_a_switch_is_true_or_false(layout: str, key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=rf"^layers\.3/{WRITERS[layout][1]}: {key} = .* must be true or false"):
        read_foreign_sae(written(layout, tmp_path, **{key: value}))


@pytest.mark.parametrize(
    ("layout", "keys", "named"),
    [
        ("lens-before-6", {"activation_fn": "relu"}, 'activation_fn_str = "topk" and activation_fn = "relu" contradict'),
        ("lens-topk", {"activation_fn_kwargs": {"k": 5}}, r"k = 4 and activation_fn_kwargs\.k = 5 contradict"),
        ("lens-before-6", {"activation_fn_kwargs": {"k": K, "postact_fn": "identity"}}, r"activation_fn_kwargs\.postact_fn"),
        ("llama-scope", {"sae_type": "crosscoder"}, 'sae_type = "crosscoder" changes'),
    ],
)
def test_keys_that_contradict_or_mean_another_function_are_refused(layout: str, keys: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=named):
        read_foreign_sae(written(layout, tmp_path, **keys))


@pytest.mark.parametrize("layout", ["sparsify", "lens-topk", "lens-before-6", "llama-scope"])
def test_an_unknown_key_that_is_on_is_told_in_one_line_and_read_past(layout: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"layers\.3/.*not read here: 'soft_cap'; where one of them") as told:
        found = read_foreign_sae(written(layout, tmp_path, soft_cap=30.0, softer_cap=False, lr=0.1, seed=7))
    assert len(told) == 1 and (found.sae.hidden_size, found.sae.n_latents) == (HIDDEN, LATENTS)


def test_what_the_libraries_write_is_told_nothing_about(tmp_path: Path) -> None:
    old = {"hook_layer": 3, "l1_coefficient": 5.0, "prepend_bos": True, "context_size": 128, "finetuning_scaling_factor": False}
    trainer = {**TRAINER, "trainer_class": "TopKTrainer", "lr": 1e-4, "steps": 9, "auxk_alpha": 0.03, "activation_dim": HIDDEN}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in every_layout(tmp_path / "all").values():
            read_foreign_sae(place)
        read_foreign_sae(written("lens-before-6", tmp_path / "old", **old))
        read_foreign_sae(written("dictionary", tmp_path / "trained", trainer=trainer))


NESTED = {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4}


@pytest.mark.parametrize("key", ["sarm_use_activation", "sarm_use_topk"])
@pytest.mark.parametrize("value", ["false", "relu", None, 0])
@pytest.mark.parametrize("flat", [False, True])
def test_whether_a_sarm_selects_is_true_or_false(key: str, value: object, flat: bool) -> None:
    stated = {**NESTED, key: value}
    with pytest.raises(UsageProblem, match=rf"^run/config\.json: .*{key} = .* must be true or false"):
        geometry_in_config(stated if flat else {"sarm_param": stated}, where="run/config.json")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"sarm_param": {**NESTED, "sae_activation": "jumprelu"}}, r'sarm_param\.sae_activation = "jumprelu" changes'),
        ({"sarm_param": NESTED, "sae_latent_size": 128}, r"sarm_param\.sae_latent_size = 24 and sae_latent_size = 128 contradict"),
        ({"sarm_param": {**NESTED, "sarm_use_activation": True}, "sarm_use_topk": False}, "sarm_use_topk = false contradict"),
        ({"sarm_param": {**NESTED, "sarm_use_activation": False, "sarm_use_topk": True}}, "contradict"),
        ({"sarm_param": NESTED, "sae_hidden_state_source_layer": 3}, "sae_hidden_state_source_layer = 3 contradict"),
        ({"sarm_param": {**NESTED, "sae_k": 3.7}}, r"sarm_param\.sae_k = 3\.7 must be a whole number"),
        ({"sarm_param": {**NESTED, "sae_k": True}}, r"sarm_param\.sae_k = true must be a whole number"),
        ({"sarm_param": {**NESTED, "sae_source_layer": 0}}, "source layer is 0"),
        ({"sarm_param": "x"}, 'sarm_param = "x" must be an object'),
        ({**NESTED, "sae_k": "4"}, '^config.json: sae_k = "4" must be a whole number'),
    ],
)
def test_a_sarms_keys_are_of_one_mind(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageProblem, match=named):
        geometry_in_config(raw)


@pytest.mark.parametrize("value", [False, True, "zscore"])
def test_an_unknown_key_of_a_sarm_is_told_even_where_it_is_off(value: object, tmp_path: Path) -> None:
    config = {"sarm_param": {**NESTED, "sae_normalize": value, "sarm_train_mode": 1, "sarm_rec_lambda": 0}}
    with pytest.warns(UserWarning, match=r"run/config\.json: not read here: 'sarm_param\.sae_normalize'") as told:
        load_reward_model(save_authors(tmp_path / "run", random_sarm(), config))
    assert len([one for one in told if "not read here" in str(one.message)]) == 1


def test_flat_keys_say_both_names_of_the_switch() -> None:
    found = geometry_in_config({**NESTED, "sarm_use_activation": False})
    assert found is not None and found.latents == "pre_acts"


@pytest.mark.parametrize(("key", "value"), [("k", True), ("k", 3.7), ("standardize", "false"), ("standardize", 0), ("layer", "2")])
def test_our_own_file_has_one_type_for_each_key(key: str, value: object, tmp_path: Path) -> None:
    save_sae(tmp_path, random_sarm().sae, layer=2)
    edit_json(tmp_path / "sae.json", **{key: value})
    with pytest.raises(UsageProblem, match=rf"sae\.json: {key}: "):
        load_sae(tmp_path)
