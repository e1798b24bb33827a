"""Whole steps of an SAE by kernels against the plain way on a CPU in float32: values, bits, and what a checkpoint carries over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dense_sae import random_sae

pytest.importorskip("pydantic", reason="the package pydantic is not installed")

from sarm.config.train import SAETrainingConfig
from sarm.engine.checkpointer import Checkpoint
from sarm.engine.group import ProcessGroup
from sarm.job import UsageProblem
from sarm.sae import kernel_choice
from sarm.sae.model import standardize
from sarm.sae.update import SAEUpdate

BATCH, HIDDEN, LATENTS, K, STEPS = 6, 20, 22, 3, 4
MOMENTS = ["as-dtype", "bfloat16"]


def update(device: torch.device, **changes: Any) -> SAEUpdate:
    """An SAE and its optimizer before the first step."""
    fields = {"n_latents": LATENTS, "k": K, "vectors": BATCH * STEPS, "batch_vectors": BATCH, "learning_rate": 1e-2, "unit_norm_every": 3}
    config = SAETrainingConfig.model_validate({"layer": 1, "warmup_fraction": 0.0, **fields, **changes})
    sae = random_sae(hidden_size=HIDDEN, n_latents=LATENTS, k=K, dtype=torch.float32).to(device)
    return SAEUpdate(config, sae, steps=STEPS, group=ProcessGroup(rank=0, size=1, device=device))


def batches(device: torch.device) -> list[torch.Tensor]:
    x = torch.randn(BATCH * STEPS, HIDDEN, generator=torch.Generator().manual_seed(2))
    return list(standardize(x).values.to(device).split(BATCH))


def run(of: SAEUpdate, first: int = 0, last: int = STEPS) -> list[float]:
    """The losses of some steps."""
    return [of.step(x, first + index).loss for index, x in enumerate(batches(of.silent_for.device)[first:last])]


def plain_update(**changes: Any) -> tuple[SAEUpdate, list[float]]:
    """All steps on a CPU, without kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_choice, "kernels", lambda room, operand: None)
        made = update(torch.device("cpu"), **changes)
        return made, run(made)


@pytest.mark.parametrize(
    "changes", [{}, {"auxk_weight": 0.1, "dead_after_vectors": 7}, {"objective": "squared_error"}], ids=["plain", "AuxK", "released loss"]
)
def test_steps_equal_those_of_a_cpu_in_float32(kernel_device: torch.device, changes: dict[str, Any]) -> None:
    ours = update(kernel_device, **changes)
    plain, losses = plain_update(**changes)
    assert run(ours) == pytest.approx(losses, rel=1e-5)
    assert torch.equal(ours.silent_for.cpu(), plain.silent_for)
    for name, value in plain.tensors().items():
        found = ours.tensors()[name].cpu()
        assert found.dtype == value.dtype, name
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5 * float(value.abs().max()), msg=lambda told, n=name: f"{n}: {told}")


def test_small_moments_stay_near_those_of_a_cpu(kernel_device: torch.device) -> None:
    ours = update(kernel_device, moments="bfloat16")
    _, losses = plain_update(moments="bfloat16")
    # Their draws differ, and with them each weight by some of the last of 8 bits of a step.
    assert run(ours) == pytest.approx(losses, rel=5e-3)
    assert {ours.tensors()[f"optimizer.{place}.exp_avg_sq"].dtype for place in range(4)} == {torch.bfloat16}


@pytest.mark.parametrize("moments", MOMENTS)
def test_a_repeated_run_gives_the_same_bits(kernel_device: torch.device, moments: str) -> None:
    one, other = update(kernel_device, moments=moments), update(kernel_device, moments=moments)
    assert run(one) == run(other)
    assert all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


@pytest.mark.parametrize("moments", MOMENTS)
def test_gradients_of_the_matrices_are_never_formed(kernel_device: torch.device, moments: str) -> None:
    ours = update(kernel_device, moments=moments)
    run(ours)
    formed = [tensor for tensor in ours.workspace._buffers.values() if tensor.numel() >= LATENTS * HIDDEN]
    # What is left is the pre-activations, which are narrower than a matrix here.
    assert not formed and ours.weights.encoder.grad is None and ours.weights.decoder_rows.grad is None


@pytest.mark.parametrize("moments", MOMENTS)
def test_a_resumed_run_ends_with_the_very_same_bytes(kernel_device: torch.device, moments: str) -> None:
    whole, stopped = update(kernel_device, moments=moments), update(kernel_device, moments=moments)
    losses = run(whole)
    run(stopped, 0, 2)
    kept = {name: value.detach().cpu().clone() for name, value in stopped.tensors().items()}
    resumed = update(kernel_device, moments=moments)
    resumed.restore(Checkpoint(step=2, tensors=kept, facts={}, folder=Path()))
    assert run(resumed, 2) == losses[2:]
    assert all(torch.equal(value, resumed.tensors()[name]) for name, value in whole.tensors().items())


def test_a_checkpoint_of_kernels_is_one_of_the_plain_way(kernel_device: torch.device) -> None:
    plain, _ = plain_update()
    stopped = update(kernel_device)
    run(stopped, 0, 2)
    kept = {name: value.detach().cpu().clone() for name, value in stopped.tensors().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_choice, "kernels", lambda room, operand: None)
        resumed = update(torch.device("cpu"))
        resumed.restore(Checkpoint(step=2, tensors=kept, facts={}, folder=Path()))
        run(resumed, 2)
    assert kept.keys() == plain.tensors().keys()
    for name, value in plain.tensors().items():
        torch.testing.assert_close(resumed.tensors()[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(kernel_device: torch.device, bad: float) -> None:
    ours = update(kernel_device)
    run(ours, 0, 2)
    before = {name: value.clone() for name, value in ours.tensors().items()}
    x = batches(kernel_device)[2].clone()
    x[5, 3] = bad
    with pytest.raises(UsageProblem, match=r"the SAE's loss is (nan|inf) at step 2"):
        ours.step(x, 2)
    assert all(torch.equal(value, ours.tensors()[name]) for name, value in before.items())
