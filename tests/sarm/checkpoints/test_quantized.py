"""Quantised weights of every kind and layout: refused by name, and no integer and no float8 ever becomes a parameter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import baseline_checkpoints
import numpy as np
import pytest
import torch
from authors_checkpoints import random_sae, random_sarm, save_authors
from every_layout import GEOMETRY
from foreign_sae_files import every_layout as foreign_saes
from foreign_sae_files import write_gemma_scope
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import edit_json, edit_tensors, job_context, save_backbone
from torch import Tensor, nn

from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.loading import fill, without_weights
from sarm.checkpoints.quantized import FLOATS, MARKS, refuse_quantized_names
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.files import import_authors_sae, load_sae, sae_of_checkpoint, save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.checkpoints.saes.layouts import read_sae
from sarm.checkpoints.tensors import HeldTensors, TensorFolder
from sarm.config.weights import WeightsConfig
from sarm.job import UsageProblem
from sarm.jobs.weights.fetch import fetch_weights

PROJECTION = "model.layers.0.self_attn.q_proj"
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def fp8(tensors: dict[str, Tensor], scale: str) -> None:
    """As DeepSeek and compressed-tensors save them: float8 and a scale."""
    tensors[f"{PROJECTION}.weight"] = tensors[f"{PROJECTION}.weight"].to(torch.float8_e4m3fn)
    tensors[f"{PROJECTION}.{scale}"] = torch.full((1, 1), 300.0)


def int8(tensors: dict[str, Tensor], _: str) -> None:
    tensors[f"{PROJECTION}.weight"] = (tensors[f"{PROJECTION}.weight"] * 100).to(torch.int8)
    tensors[f"{PROJECTION}.SCB"] = torch.ones(16)


def nf4(tensors: dict[str, Tensor], part: str) -> None:
    packed = tensors[f"{PROJECTION}.weight"].numel() // 2
    tensors[f"{PROJECTION}.weight"] = torch.zeros(packed, 1, dtype=torch.uint8)
    tensors[f"{PROJECTION}.weight.{part}"] = torch.zeros(4)


def gptq(tensors: dict[str, Tensor], part: str) -> None:
    del tensors[f"{PROJECTION}.weight"]
    tensors[f"{PROJECTION}.{part}"] = torch.zeros(2, 16, dtype=torch.int32)


KINDS: dict[str, tuple[Callable[[dict[str, Tensor], str], None], str]] = {
    "weight_scale": (fp8, "weight_scale"),
    "weight_scale_inv": (fp8, "weight_scale_inv"),
    "SCB": (int8, ""),
    "quant_state": (nf4, "quant_state.bitsandbytes__nf4"),
    "absmax": (nf4, "absmax"),
    "qweight": (gptq, "qweight"),
    "qzeros": (gptq, "qzeros"),
    "scales": (gptq, "scales"),
}


def models(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """A backbone, and reward models of every layout in which `PROJECTION` stands."""

    def backbone(path: Path) -> object:
        return load_truncated_backbone(path, layer=2, dtype=torch.float32)

    found: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "backbone": (save_backbone(folder / "backbone"), backbone),
        "authors": (save_authors(folder / "authors", random_sarm(), GEOMETRY), load_reward_model),
    }
    for name in ("armorm", "qrm-llama3", "grm-mlp", "classifier-llama"):
        found[name] = (baseline_checkpoints.write_checkpoint(folder / name, name), load_reward_model)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_is_refused_by_file_and_tensor(kind: str, tmp_path: Path) -> None:
    change, part = KINDS[kind]
    for name, (path, load) in models(tmp_path).items():
        load(path)
        edit_tensors(path / "model.safetensors", lambda tensors: change(tensors, part))
        with pytest.raises(UsageProblem, match=rf"^{name}/model\.safetensors: tensor '{PROJECTION}\S*{kind}\S*' is of quantised") as told:
            load(path)
        assert "\n" not in str(told.value) and "dequantised" in str(told.value)


@pytest.mark.parametrize("dtype", [*FLOAT8, *INTEGERS], ids=str)
def test_other_numbers_than_floats_are_refused_without_any_mark(dtype: torch.dtype, tmp_path: Path) -> None:
    kind = str(dtype).removeprefix("torch.")
    for name, (path, load) in models(tmp_path).items():
        edit_tensors(
            path / "model.safetensors", lambda tensors: tensors.update({f"{PROJECTION}.weight": tensors[f"{PROJECTION}.weight"].to(dtype)})
        )
        with pytest.raises(UsageProblem, match=rf"^{name}/model\.safetensors: tensor '{PROJECTION}\.weight' holds {kind} where"):
            load(path)


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.int8, torch.int32], ids=str)
@pytest.mark.parametrize(
    "head", [("armorm", "regression_layer.weight"), ("grm-mlp", "v_head.summary.2.weight"), ("classifier-llama", "score.weight")]
)
def test_heads_are_floats_too(head: tuple[str, str], dtype: torch.dtype, tmp_path: Path) -> None:
    name, tensor = head
    path = baseline_checkpoints.write_checkpoint(tmp_path / name, name)
    edit_tensors(path / "model.safetensors", lambda tensors: tensors.update({tensor: tensors[tensor].to(dtype)}))
    with pytest.raises(UsageProblem, match=rf"{name}.*: tensor '{tensor}' holds {str(dtype).removeprefix('torch.')} where"):
        load_reward_model(path)


def files_of(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.rglob("*")) if one.suffix in (".safetensors", ".pt", ".npz")]


def cast_all(file: Path, dtype: torch.dtype) -> None:
    """Every float tensor of a file in another type, as a quantised one would be."""
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            kept = {name: arrays[name].astype(np.int8) for name in arrays.files}
        np.savez(file, **kept)
        return
    tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    changed = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(changed, file) if file.suffix == ".safetensors" else torch.save(changed, file)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8], ids=str)
def test_saes_of_every_layout_are_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    places = foreign_saes(tmp_path / "foreign")
    assert {name.partition("-")[0] for name in places} == {"sae_lens", "sparsify", "dictionary_learning", "llama_scope", "gemma_scope"}
    for path in places.values():
        (file,) = files_of(path)
        cast_all(file, dtype)
        with pytest.raises(UsageProblem, match=rf"{file.name}: tensor '\w+.*' holds (float8_e4m3fn|u?int8) where the model has float32"):
            read_foreign_sae(path)
    (tmp_path / "own").mkdir()
    save_sae(tmp_path / "own", random_sae(), layer=2)
    authors = tmp_path / "Llama_token_Latent24_Layer2_K4_1B.pt"
    torch.save(dict(random_sae().state_dict()), authors)
    inside = save_authors(tmp_path / "sarm", random_sarm(), GEOMETRY)
    for file, load in (
        (tmp_path / "own" / "sae.safetensors", lambda: load_sae(tmp_path / "own")),
        (authors, lambda: import_authors_sae(authors)),
    ):
        cast_all(file, dtype)
        with pytest.raises(UsageProblem, match=r"tensor '.+' holds (float8_e4m3fn|u?int8) where"):
            load()
    cast_all(inside / "model.safetensors", dtype)
    for load in (lambda: sae_of_checkpoint(inside), lambda: read_sae(inside)):
        with pytest.raises(UsageProblem, match=r"sarm/model\.safetensors: tensor 'sae\..+' holds"):
            load()


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("method", ["fp8", "bitsandbytes", "gptq", "awq", "compressed-tensors"])
def test_a_config_that_tells_of_quantisation_is_refused_by_file_and_key(key: str, method: str, tmp_path: Path) -> None:
    for name, (path, load) in models(tmp_path).items():
        edit_json(path / "config.json", **{key: {"quant_method": method}})
        with pytest.raises(UsageProblem, match=rf"^{name}/config\.json: {key} says that the weights are quantised \({method}\)"):
            load(path)
        edit_json(path / "config.json", **{key: {}})
        load(path)


def test_a_quantised_model_never_becomes_an_artifact(tmp_path: Path) -> None:
    for kind, (change, part) in KINDS.items():
        source = save_backbone(tmp_path / kind)
        edit_tensors(source / "model.safetensors", lambda tensors, change=change, part=part: change(tensors, part))
        with pytest.raises(UsageProblem, match=rf"{kind}/model\.safetensors: tensor '{PROJECTION}"):
            fetch_weights(
                WeightsConfig(origin="folder", revision="0" * 64), job_context(tmp_path / "job" / kind, locations={"source": source})
            )
    source = save_backbone(tmp_path / "settings")
    edit_json(source / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(UsageProblem, match=r"config\.json: quantization_config"):
        fetch_weights(WeightsConfig(origin="folder", revision="0" * 64), job_context(tmp_path / "last", locations={"source": source}))


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    for path, load in models(tmp_path).values():
        (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
        with pytest.raises(UsageProblem, match=r"adapter_config\.json: an adapter lies beside the weights"):
            load(path)


def test_arrays_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    place = write_gemma_scope(tmp_path)
    with np.load(place / "params.npz") as arrays:
        kept = dict(arrays)
    np.savez(place / "params.npz", **{**kept, "b_enc": np.array(["a", "b"])})
    with pytest.raises(UsageProblem, match=r"params\.npz: not an archive of plain arrays"):
        read_foreign_sae(place)


DTYPES = (*FLOATS, *FLOAT8, *INTEGERS, torch.complex64)


@given(held=st.sampled_from(sorted(DTYPES, key=str)), wanted=st.sampled_from(sorted(FLOATS, key=str)))
@settings(max_examples=200, deadline=None)
def test_fill_takes_floats_and_nothing_else(held: torch.dtype, wanted: torch.dtype) -> None:
    with without_weights():
        module = nn.Linear(3, 2, bias=False).to(wanted)
    source = HeldTensors({"theirs": torch.ones(2, 3).to(held)})
    if held in FLOATS:
        fill(module, source, {"weight": "theirs"}, what="m")
        assert module.weight.dtype == wanted and bool((module.weight == 1).all())
    else:
        with pytest.raises(UsageProblem, match="m: tensor 'theirs' holds"):
            fill(module, source, {"weight": "theirs"}, what="m")


WORDS = st.sampled_from(["model", "layers", "0", "mlp", "up_proj", "sae", "encoder", "score", "experts"])
ENDS = st.sampled_from(
    [
        *("weight_scale", "weight_scale_inv", "input_scale", "SCB", "weight_format", "quant_state", "weight.quant_state.bitsandbytes__fp4"),
        *("weight.absmax", "weight.nested_absmax", "weight.quant_map", "qweight", "qzeros", "scales", "g_idx", "weight_packed"),
    ]
)


@given(words=st.lists(WORDS, min_size=1, max_size=6), end=ENDS)
def test_every_mark_of_quantised_files_is_known_wherever_it_stands(words: list[str], end: str) -> None:
    name = ".".join([*words, end])
    with pytest.raises(UsageProblem, match="is of quantised weights"):
        refuse_quantized_names([*words, name], lambda _: "m")
    refuse_quantized_names([".".join([*words, tail]) for tail in ("weight", "bias")], lambda _: "m")


def test_names_of_models_that_we_read_are_no_marks(tmp_path: Path) -> None:
    for path, _ in models(tmp_path).values():
        refuse_quantized_names(TensorFolder(path).names, lambda _: "m")
    assert len(MARKS) > 4
