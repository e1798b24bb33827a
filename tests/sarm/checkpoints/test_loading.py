"""Loading draws nothing, fills nothing twice and holds no more than the model and one tensor."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from authors_checkpoints import random_sarm
from every_layout import LLAMA3_ROTARY, every_layout
from folders import ROOT
from safetensors.torch import load_file, save_file
from tiny import HIDDEN, causal_lm, edit_tensors, llama_config, save_backbone
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

import sarm.reward.hf
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints import loading
from sarm.checkpoints.backbones import load_truncated_backbone
from sarm.checkpoints.loading import fill, finish, without_weights
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.tensors import HeldTensors, TensorFolder, write_tensor_file
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


class Filled(Exception):
    """A weight was given a value that no checkpoint holds."""


@pytest.fixture
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any first value for a weight is an error, and the random number generators are as they were afterwards."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise Filled

    for name, function in vars(nn.init).items():
        if name.endswith("_") and not name.startswith("_") and callable(function):
            monkeypatch.setattr(nn.init, name, refuse)
    for name in ("_init_weights", "_initialize_weights", "initialize_weights", "init_weights"):
        monkeypatch.setattr(PreTrainedModel, name, refuse)
    before = generators()
    yield
    assert generators() == before


def generators() -> tuple[bytes, str, str]:
    """What torch, numpy and Python would draw next."""
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[], nn.Module]]:
    return every_layout(tmp_path_factory.mktemp("layouts"))


def test_every_layout_is_loaded_without_a_first_value(layouts: dict[str, Callable[[], nn.Module]], nothing_is_drawn: None) -> None:
    assert len(layouts) > 60
    for name, load in layouts.items():
        model = load()
        left = [part for part, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
        assert not left, f"{name}: {left}"


def test_the_spy_sees_a_model_that_is_filled_with_random_values(nothing_is_drawn: None) -> None:
    with pytest.raises(Filled):
        truncated_backbone(llama_config(), 2)
    with pytest.raises(Filled):
        TopKSAE(hidden_size=8, n_latents=16, k=2)


def test_transformers_own_loader_draws_nothing_for_a_sarm_either(tmp_path: Path) -> None:
    assert sarm.reward.hf.SarmConfig.model_type == "sarm"
    save_reward_model(tmp_path, random_sarm(), encoder="sae", tokenizer=None)
    before = generators()
    AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert generators() == before


def old_way(folder: Path, *, layer: int, dtype: torch.dtype) -> PreTrainedModel:
    """Random values first, in the configuration's precision, then the checkpoint's over them."""
    config = load_truncated_backbone(folder, layer=layer, dtype=dtype).config
    model = truncated_backbone(config, layer)
    model.to(dtype=dtype)  # type: ignore[call-arg]
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name: tensors[f"model.{name}" if f"model.{name}" in tensors else name] for name in model.state_dict()})
    return model.eval()


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True}, {"rope_parameters": LLAMA3_ROTARY}], ids=["plain", "tied", "llama3"]
)
def test_a_loaded_backbone_has_the_bits_of_the_old_way_buffers_too(tmp_path: Path, changes: dict[str, Any], dtype: torch.dtype) -> None:
    folder = save_backbone(tmp_path, **changes)
    ours, theirs = load_truncated_backbone(folder, layer=2, dtype=dtype), old_way(folder, layer=2, dtype=dtype)
    for one, other in ((ours.named_parameters(), theirs.named_parameters()), (ours.named_buffers(), theirs.named_buffers())):
        expected = dict(other)
        found = dict(one)
        assert found.keys() == expected.keys() and found
        for name, value in found.items():
            assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name
            assert value.requires_grad == expected[name].requires_grad, name
    ids = torch.tensor([[0, 9, 10, 4, 5]])
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).last_hidden_state, theirs(input_ids=ids).last_hidden_state)


def test_a_norm_that_is_never_applied_has_its_first_value_where_a_file_lacks_it(tmp_path: Path) -> None:
    save_reward_model(tmp_path, random_sarm(), encoder="sae", tokenizer=None)
    edit_tensors(tmp_path / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    norm = load_reward_model(tmp_path, dtype=BFLOAT16).model.norm.weight
    assert torch.equal(norm, torch.ones(HIDDEN, dtype=BFLOAT16)) and not norm.requires_grad


def test_a_norm_that_is_applied_must_be_there(tmp_path: Path) -> None:
    model = load_truncated_backbone(save_backbone(tmp_path / "b"), layer=2, dtype=FLOAT32, keep_final_norm=True)
    save_reward_model(tmp_path / "m", sarm.reward.models.DenseRewardModel(model, hidden_size=HIDDEN), encoder="none", tokenizer=None)
    edit_tensors(tmp_path / "m" / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(UsageProblem, match=r"m: tensor 'model\.norm\.weight' is missing"):
        load_reward_model(tmp_path / "m")


class Twice(nn.Module):
    """One weight in two places, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.other = nn.Linear(3, 3, bias=False)
        self.register_buffer("constant", torch.arange(3.0), persistent=False)


def test_tied_weights_stay_one_and_buffers_keep_their_values() -> None:
    with without_weights():
        module = Twice()
    assert module.one.weight.is_meta and not module.constant.is_meta
    module.other.weight = module.one.weight
    value = torch.arange(9.0).reshape(3, 3)
    fill(module, HeldTensors({"w": value}), {"one.weight": "w"}, what="m")
    assert module.one.weight is module.other.weight and torch.equal(module.one.weight, value)
    assert module.one.weight.data_ptr() != value.data_ptr()
    assert module.constant.tolist() == [0, 1, 2]


def test_a_weight_without_value_is_never_given_out() -> None:
    with without_weights():
        module = Twice()
    with pytest.raises(RuntimeError, match=r"m: nothing gave 'other\.weight' a value \(1 in all\)"):
        fill(module, HeldTensors({"w": torch.zeros(3, 3)}), {"one.weight": "w"}, what="m")
    with pytest.raises(RuntimeError, match="nothing gave"):
        finish(module, device=torch.device("cpu"), what="m")


def test_a_large_tensor_stays_on_disk_until_it_is_changed_and_the_file_never_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAPPED_FROM", 1)
    save_backbone(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_truncated_backbone(tmp_path, layer=4, dtype=FLOAT32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    again = load_truncated_backbone(tmp_path, layer=4, dtype=FLOAT32)
    assert torch.equal(model.embed_tokens.weight, again.embed_tokens.weight + 1)


def test_a_model_can_be_written_over_the_file_that_it_is_mapped_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAPPED_FROM", 1)
    save_reward_model(tmp_path, random_sarm(), encoder="sae", tokenizer=None)
    before = load_file(tmp_path / "model.safetensors")
    save_reward_model(tmp_path, load_reward_model(tmp_path), encoder="sae", tokenizer=None)
    after = load_reward_model(tmp_path).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_written_file_has_the_bytes_of_the_library_s_own(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(3, dtype=BFLOAT16), "c": torch.tensor(3)}
    write_tensor_file(tmp_path / "ours.safetensors", tensors, metadata={"format": "pt"})
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_shape_is_told_without_reading(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(5, 2)}, tmp_path / "one.safetensors")
    assert TensorFolder(tmp_path / "one.safetensors").tensor("w").shape == (5, 2)


GROWTH = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, "benchmarks")
from interleaved import peak_from_now, status
from sarm.checkpoints.backbones import load_truncated_backbone
small, large, dtype = Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3])
load_truncated_backbone(small, layer=1, dtype=dtype)
before = peak_from_now()
model = load_truncated_backbone(large, layer=6, dtype=dtype)
touched = sum(float(parameter.detach().flatten()[::512].abs().max()) for parameter in model.parameters())
sizes = [parameter.nbytes for parameter in model.parameters()]
print(json.dumps({"before": before, "peak": status("VmHWM"), "model": sum(sizes), "largest": max(sizes), "touched": touched}))
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_reading_peaks_at_the_model_and_one_tensor(tmp_path: Path, dtype: str) -> None:
    small = save_backbone(tmp_path / "small")
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 12}
    causal_lm(llama_config(vocab_size=8000, **sizes)).to(BFLOAT16).save_pretrained(tmp_path / "large")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", GROWTH, str(small), str(tmp_path / "large"), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    if told["before"] is None:
        pytest.skip("the kernel does not let a process forget its peak")
    assert told["model"] > 50_000_000 and told["touched"] > 0
    # The old way: the model twice (bfloat16), or once and all of the file that was touched (float32). 8 MB are the interpreter's.
    assert told["peak"] - told["before"] < told["model"] + 2 * told["largest"] + 8_000_000
