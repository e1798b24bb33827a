"""Tensors that nothing reads: harmless ones are known, at the values at which they are harmless; all others are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import baseline_checkpoints
import pytest
import torch
from authors_checkpoints import random_sarm, save_authors
from every_layout import GEOMETRY, LLAMA3_ROTARY
from foreign_sae_files import SAE_LENS, every_layout, write_dictionary, write_sae_lens
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import HIDDEN, edit_json, edit_tensors, save_backbone
from torch import Tensor, nn

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_config, load_truncated_backbone
from sarm.checkpoints.leftovers import LEFTOVERS, Known, refuse_unknown
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.checkpoints.tensors import HeldTensors
from sarm.job import UsageProblem

Load = Callable[[Path], nn.Module]


def backbone(path: Path) -> nn.Module:
    return load_truncated_backbone(path, layer=2, dtype=torch.float32)


def decoders(folder: Path) -> dict[str, tuple[Path, Load]]:
    """One folder of every layout that has a decoder, with its load."""
    found: dict[str, tuple[Path, Load]] = {
        "backbone": (save_backbone(folder / "backbone"), backbone),
        "backbone in half precision": (
            save_backbone(folder / "half"),
            lambda path: load_truncated_backbone(path, layer=2, dtype=torch.bfloat16),
        ),
        "llama3": (save_backbone(folder / "llama3", rope_parameters=LLAMA3_ROTARY), backbone),
        "authors": (save_authors(folder / "authors", random_sarm(), GEOMETRY), load_reward_model),
    }
    for name in ("armorm", "qrm-llama3", "grm-linear", "ldl", "classifier-llama"):
        found[name] = (baseline_checkpoints.write_checkpoint(folder / name, name), load_reward_model)
    return found


def add(folder: Path, **tensors: Tensor) -> None:
    """Put tensors into a folder's weights; `__` stands for a dot."""
    named = {name.replace("__", "."): value for name, value in tensors.items()}
    edit_tensors(folder / "model.safetensors", lambda held: held.update(named))


def prefix_of(folder: Path) -> str:
    return "model." if "model.embed_tokens.weight" in load_file(folder / "model.safetensors") else ""


def test_rotary_frequencies_are_left_out_where_they_are_those_of_the_config(tmp_path: Path) -> None:
    for name, (path, load) in decoders(tmp_path).items():
        before = {key: value.clone() for key, value in load(path).state_dict().items()}
        config = load_config(path)
        computed = truncated_backbone(config, 1).rotary_emb.inv_freq
        key = f"{prefix_of(path)}layers.0.self_attn.rotary_emb.inv_freq"
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            add(path, **{key: computed.to(dtype)})
            after = load(path).state_dict()
            assert before.keys() == after.keys() and all(torch.equal(before[one], after[one]) for one in before), name
        for wrong in (computed * 2, computed[:-1], torch.zeros_like(computed)):
            add(path, **{key: wrong})
            with pytest.raises(UsageProblem, match=rf"'{re.escape(key)}' can be left out only where its frequencies are those that config"):
                load(path)


def test_the_language_model_head_is_left_out_where_it_is_one(tmp_path: Path) -> None:
    for name, (path, load) in decoders(tmp_path).items():
        width = load_config(path).hidden_size
        add(path, lm_head__weight=torch.ones(40, width))
        load(path)
        if not name.startswith(("backbone", "llama3")):
            add(path, lm_head__weight=torch.ones(40, width + 1))
            with pytest.raises(UsageProblem, match=r"'lm_head\.weight' can be left out only where it is a matrix on the model's states"):
                load(path)


@pytest.mark.parametrize(
    "part",
    [
        *("layers.0.self_attn.q_proj.bias", "layers.1.self_attn.q_norm.weight", "layers.0.self_attn.q_proj.lora_A.weight"),
        *("layers.0.mlp.experts.0.up_proj.weight", "embed_tokens.lora_embedding_A", "layers.1.input_layernorm.bias", "norm.bias"),
    ],
)
def test_a_tensor_that_changes_the_forward_pass_is_refused_by_name(part: str, tmp_path: Path) -> None:
    for path, load in decoders(tmp_path).values():
        name = prefix_of(path) + part
        edit_tensors(path / "model.safetensors", lambda held, name=name: held.update({name: torch.zeros(HIDDEN)}))
        with pytest.raises(UsageProblem, match=rf"unknown tensor '{re.escape(name)}' \(1 in all\)"):
            load(path)


def test_heads_and_deeper_blocks_of_a_backbone_are_not_its_concern(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "m")
    add(
        folder,
        model__layers__3__mlp__up_proj__bias=torch.zeros(3),
        v_head__summary__weight=torch.zeros(1, HIDDEN),
        sae__pre_bias=torch.ones(3),
    )
    backbone(folder)
    bare = save_backbone(tmp_path / "bare")
    edit_tensors(
        bare / "model.safetensors", lambda held: [held.update({name.removeprefix("model."): held.pop(name)}) for name in list(held)]
    )
    add(bare, regression_layer__weight=torch.zeros(3, HIDDEN))
    backbone(bare)
    add(bare, layers__0__self_attn__q_proj__bias=torch.zeros(HIDDEN))
    with pytest.raises(UsageProblem, match=r"unknown tensor 'layers\.0\.self_attn\.q_proj\.bias'"):
        backbone(bare)


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
@pytest.mark.parametrize("kind", [*SAE_LENS, "topk-before-6"])
def test_scales_of_sae_lens_are_left_out_where_they_are_ones(name: str, kind: str, tmp_path: Path) -> None:
    folder = write_sae_lens(tmp_path, kind)
    before = read_foreign_sae(folder).sae.state_dict()
    for stated in (False, True):
        edit_json(folder / "cfg.json", finetuning_scaling_factor=stated)
        edit_tensors(folder / "sae_weights.safetensors", lambda held: held.update({name: torch.ones(24)}))
        after = read_foreign_sae(folder).sae.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
    edit_tensors(folder / "sae_weights.safetensors", lambda held: held.update({name: torch.ones(24).index_fill(0, torch.tensor([3]), 1.5)}))
    with pytest.raises(UsageProblem, match=rf"sae_weights\.safetensors: tensor '{name}' can be left out only where all its values are 1"):
        read_foreign_sae(folder)


def test_another_class_of_dictionaries_has_other_tensors(tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path, "AutoEncoder")
    tensors = torch.load(folder / "ae.pt", weights_only=True)
    for name, value in {"threshold": torch.tensor(0.5), "b_dec": tensors["bias"] + 1, "decoder.bias": tensors["bias"]}.items():
        torch.save({**tensors, name: value}, folder / "ae.pt")
        with pytest.raises(UsageProblem, match=rf"ae\.pt: (unknown )?tensor '{name}'"):
            read_foreign_sae(folder)


SPARE = st.sampled_from(
    ["gate", "b_mag", "r_mag", "W_skip", "rotary", "inv_freq", "lm_head.scale", "bias2", "log_threshold", "feature_norm"]
)


@given(
    name=SPARE | st.text("abcdefgh_.", min_size=1, max_size=12), layout=st.sampled_from(["decoder", "SAELens", "sparsify", "Llama Scope"])
)
def test_what_is_not_in_the_list_is_refused_whatever_it_holds(name: str, layout: str) -> None:
    for value in (torch.ones(3), torch.zeros(3), torch.ones(2, 2)):
        with pytest.raises(UsageProblem, match="unknown tensor"):
            refuse_unknown(HeldTensors({name: value}), [name], layout=layout, what="m", meaning="x", known=Known())  # type: ignore[arg-type]


def test_every_foreign_layout_refuses_a_spare_tensor(tmp_path: Path) -> None:
    for path in every_layout(tmp_path).values():
        for file in [one for one in path.rglob("*") if one.suffix in (".safetensors", ".pt")]:
            tensors = {
                **(load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)),
                "spare": torch.ones(24),
            }
            save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
            with pytest.raises(UsageProblem, match=rf"{file.name}: unknown tensor 'spare'"):
                read_foreign_sae(path)


def test_the_list_names_its_layouts_and_conditions() -> None:
    for one in LEFTOVERS:
        assert one.layouts and one.only, one.name.pattern
