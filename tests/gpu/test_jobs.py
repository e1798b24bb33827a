"""Both trainings on a GPU: a few steps in float32 against the CPU, and a stopped run that ends with the bytes of an undisturbed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pydantic", reason="the package pydantic is not installed")
pytest.importorskip("nupunkt", reason="the package nupunkt is not installed")

import train_jobs
from safetensors.torch import load_file
from tiny import Stop, read_rows, same_bytes

from sarm.job import Interrupted

CPU = torch.device("cpu")
Train = Callable[..., Path]
WEIGHTS: dict[str, tuple[Train, str]] = {
    "reward": (train_jobs.reward, "model.safetensors"),
    "SAE": (train_jobs.sae, "sae.safetensors"),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return train_jobs.write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("reward", {"max_steps": 3}),
        ("reward", {"max_steps": 3, "encoder": "none"}),
        ("reward", {"max_steps": 3, "sae_trains": True, "reconstruction_weight": 1.0}),
        ("SAE", {"vectors": 48, "held_out_vectors": 0}),
        ("SAE", {"vectors": 48, "held_out_vectors": 0, "auxk_weight": 0.1, "dead_after_vectors": 16}),
    ],
    ids=str,
)
def test_three_steps_in_float32_are_those_of_a_cpu(
    device: torch.device, tmp_path: Path, inputs: dict[str, Path], kind: str, changes: dict[str, Any]
) -> None:
    train, name = WEIGHTS[kind]
    plain = {"warmup_fraction": 0.0, **changes}
    there, here = train(tmp_path / "there", inputs, device, **plain), train(tmp_path / "here", inputs, CPU, **plain)
    losses = [
        [row["loss" if kind == "SAE" else "preference_loss"] for row in read_rows(folder / "metrics.jsonl")] for folder in (there, here)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    ours, theirs = load_file(there / name), load_file(here / name)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        # Three steps of Adam move a weight by up to 3e-3.
        torch.testing.assert_close(ours[key], value, rtol=0, atol=2e-5, msg=lambda told, key=key: f"{key}: {told}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stopped_reward_training_ends_with_the_very_same_bytes(
    device: torch.device, tmp_path: Path, inputs: dict[str, Path], dtype: str
) -> None:
    whole = train_jobs.reward(tmp_path / "whole", inputs, device, dtype=dtype)
    same_bytes(whole, train_jobs.reward(tmp_path / "again", inputs, device, dtype=dtype))
    with pytest.raises(Interrupted):
        train_jobs.reward(tmp_path / "stopped", inputs, device, dtype=dtype, stop=Stop(5))
    same_bytes(whole, train_jobs.reward(tmp_path / "stopped", inputs, device, dtype=dtype))


@pytest.mark.parametrize(
    "changes", [{}, {"products": "bfloat16"}, {"products": "bfloat16", "moments": "bfloat16"}, {"dtype": "bfloat16"}], ids=str
)
def test_a_stopped_sae_training_ends_with_the_very_same_bytes(
    device: torch.device, tmp_path: Path, inputs: dict[str, Path], changes: dict[str, Any]
) -> None:
    choices = {"backbone_dtype": "bfloat16", **changes}
    whole = train_jobs.sae(tmp_path / "whole", inputs, device, **choices)
    same_bytes(whole, train_jobs.sae(tmp_path / "again", inputs, device, **choices))
    with pytest.raises(Interrupted):
        train_jobs.sae(tmp_path / "stopped", inputs, device, **choices, stop=Stop(11))
    same_bytes(whole, train_jobs.sae(tmp_path / "stopped", inputs, device, **choices))
