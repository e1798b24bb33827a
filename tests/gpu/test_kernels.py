"""Kernels of the SAE step against float64, on a GPU and (in Triton's interpreter) on a CPU; the plain way where no kernel runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from dense_sae import random_sae, tensors_of
from kernel_samples import apart, exact_products, operands, products

from sarm.sae import kernel_choice
from sarm.sae.model import TopKSAE, standardize
from sarm.sae.small_moments import SmallMomentsAdam, step_settings, update_by_slices
from sarm.sae.step import AuxK, Descent, SAETensors, Workspace, descend

# Operands are rounded beforehand; what differs is summed in single precision.
TOLERANCE = 1e-6
PRECISIONS = [torch.float32, torch.bfloat16]
# The second is wider than a program of any kernel takes at once, and neither is a power of 2.
SHAPES: list[dict[str, int]] = [{"rows": 9, "hidden": 40, "n_latents": 24, "k": 5}, {"rows": 6, "hidden": 1100, "n_latents": 12, "k": 4}]
NUMBERS = step_settings({"lr": 1e-2, "betas": (0.9, 0.999), "seed": 3}, step=4, place=2)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_float64_and_repeat_to_the_bit(kernel_device: torch.device, shape: dict[str, int], dtype: torch.dtype) -> None:
    given = operands(**shape, dtype=dtype).to(kernel_device)
    assert kernel_choice.kernels("active_pairs", given.values) is not None
    found, again = products(given), products(given)
    for name, exact in exact_products(given).items():
        assert apart(found[name], exact) < TOLERANCE, name
        assert torch.equal(found[name], again[name]), name
    assert not found["weight gradients"][1].any(), "a latent that no row keeps has a gradient of 0, which must be written"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_products_equal_float64_at_a_width_of_the_paper(gpu: torch.device, dtype: torch.dtype) -> None:
    given = operands(rows=512, hidden=3072, n_latents=8192, k=144, dtype=dtype)
    found = products(given.to(gpu))
    for name, exact in exact_products(given).items():
        assert apart(found[name], exact) < TOLERANCE, name


def descent(sae: TopKSAE, x: torch.Tensor, auxk: AuxK | None, dtype: torch.dtype, *, plain: bool) -> tuple[SAETensors, Descent]:
    """A batch's gradients by kernels, or by the plain form."""
    weights = tensors_of(sae)
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(kernel_choice, "kernels", lambda room, operand: None)
        return weights, descend(weights, x, k=sae.k, objective="normalized_mse", auxk=auxk, product_dtype=dtype, workspace=Workspace())


@pytest.mark.parametrize("dead", [False, True], ids=["without AuxK", "with AuxK"])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_loss_and_gradients_equal_those_of_the_plain_form(kernel_device: torch.device, dtype: torch.dtype, dead: bool) -> None:
    x = standardize(torch.randn(7, 300, generator=torch.Generator().manual_seed(1))).values
    auxk = AuxK(weight=0.5, dead=torch.arange(40) % 3 == 0) if dead else None
    sae = random_sae(hidden_size=300, n_latents=40, k=11, dtype=torch.float32)
    with torch.no_grad():
        sae.latent_bias[4], sae.latent_bias[5] = 50.0, -50.0
    weights, plain = descent(copy.deepcopy(sae), x, auxk, dtype, plain=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_choice, "kernels", lambda room, operand: None)
        expected = plain.gradients(weights, Workspace())
    there = None if auxk is None else auxk._replace(dead=auxk.dead.to(kernel_device))
    weights, found = descent(sae.to(kernel_device), x.to(kernel_device), there, dtype, plain=False)
    assert float(found.loss) == pytest.approx(float(plain.loss), rel=1e-5)
    assert torch.equal(found.fired.cpu(), plain.fired)
    for name, ours, other in zip(expected._fields, found.gradients(weights, Workspace()), expected, strict=True):
        assert other.any(), name
        torch.testing.assert_close(
            ours.cpu(), other, rtol=1e-4, atol=1e-5 * float(other.abs().max()), msg=lambda told, n=name: f"{n}: {told}"
        )


def moments(shape: torch.Size, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(shape, generator=draw).to(dtype), torch.rand(shape, generator=draw).to(dtype)


@pytest.mark.parametrize("small", [False, True], ids=["float32 moments", "bfloat16 moments"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_updating_while_summing_equals_adam_in_float64_on_the_exact_gradient(
    kernel_device: torch.device, shape: dict[str, int], small: bool
) -> None:
    given = operands(**shape, dtype=torch.bfloat16)
    gradient = exact_products(given)["weight gradients"]
    parameter = given.weights.float()
    mean, square = moments(parameter.shape, torch.bfloat16 if small else torch.float32)
    first = 0.9 * mean.double() + 0.1 * gradient
    second = 0.999 * square.double() + 0.001 * gradient**2
    exact = parameter.double() - NUMBERS["rate"] * first / ((second / NUMBERS["correction"]).sqrt() + NUMBERS["epsilon"])
    ours = updated_by_pairs(kernel_device, given, parameter, mean, square)
    assert apart(ours[0], exact) < TOLERANCE and apart(ours[0] - parameter.to(kernel_device), exact - parameter) < 1e-5
    assert all(
        torch.equal(one, other) for one, other in zip(ours, updated_by_pairs(kernel_device, given, parameter, mean, square), strict=True)
    )
    nearest = 2**-8 if small else TOLERANCE
    assert apart(ours[1], first) < nearest
    # At random, to either neighbour.
    assert float(((ours[2].double().cpu() - second).abs() / second).max()) < 2 * nearest + 1e-6
    assert abs(float((ours[2].double().cpu() / second).mean()) - 1) < (2e-3 if small else 1e-6)


def updated_by_pairs(
    device: torch.device, given: Any, parameter: torch.Tensor, mean: torch.Tensor, square: torch.Tensor
) -> list[torch.Tensor]:
    """Parameter and moments after the fused kernel."""
    triton = kernel_choice.kernels("adam", given.to(device).values)
    assert triton is not None
    there, tensors = given.to(device), [tensor.to(device).clone() for tensor in (parameter, mean, square)]
    pairs = there.pairs()
    factors = pairs.by_latent(there.values.reshape(-1))
    triton.update_by_pairs(*tensors, factors=factors, vectors=there.vectors, rows=pairs.rows, starts=pairs.latent_starts, **NUMBERS)
    return tensors


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_updating_while_summing_gives_the_bits_of_doing_one_after_the_other(kernel_device: torch.device, shape: dict[str, int]) -> None:
    given = operands(**shape, dtype=torch.bfloat16)
    parameter = given.weights.float()
    mean, square = moments(parameter.shape, torch.bfloat16)
    fused = updated_by_pairs(kernel_device, given, parameter, mean, square)
    gradient = products(given.to(kernel_device))["weight gradients"]
    apart_from_it = [tensor.to(kernel_device).clone() for tensor in (parameter, mean, square)]
    triton = kernel_choice.kernels("adam", gradient)
    assert triton is not None
    p, m, v = (tensor.view(-1) for tensor in apart_from_it)
    triton.update(p, gradient.view(-1), m, v, **NUMBERS)
    assert all(torch.equal(one, other) for one, other in zip(fused, apart_from_it, strict=True))


def test_adam_with_small_moments_equals_its_plain_form(kernel_device: torch.device) -> None:
    draw = torch.Generator().manual_seed(1)
    parameter, gradient = (torch.randn(3000, generator=draw) for _ in range(2))
    mean, square = moments(torch.Size([3000]), torch.bfloat16)
    plain = [tensor.clone() for tensor in (parameter, gradient, mean, square)]
    update_by_slices(*plain, **NUMBERS)
    ours = [tensor.to(kernel_device).clone() for tensor in (parameter, gradient, mean, square)]
    triton = kernel_choice.kernels("adam", ours[0])
    assert triton is not None
    triton.update(*ours, **NUMBERS)
    torch.testing.assert_close(ours[0].cpu(), plain[0], rtol=1e-6, atol=1e-7)
    assert not torch.equal(ours[0].cpu(), parameter)
    torch.testing.assert_close(ours[2].cpu().float(), plain[2].float(), rtol=2**-7, atol=1e-9)
    # Their draws differ: each is one of the two neighbours of the exact value, and right in the mean.
    exact = 0.999 * square.double() + 0.001 * gradient.double() ** 2
    found = ours[3].cpu().double()
    assert float(((found - exact).abs() / exact).max()) <= 2**-7
    assert abs(float((found / exact).mean()) - 1) < 5e-4


@pytest.mark.gpu
def test_the_plain_form_equals_float64_on_a_gpu_too(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "kernels", lambda room, operand: None)
    given = operands(**SHAPES[1], dtype=torch.float32)
    found = products(given.to(gpu))
    for name, exact in exact_products(given).items():
        assert apart(found[name], exact) < TOLERANCE, name
    parameter = torch.zeros(50, device=gpu)
    parameter.grad = torch.ones(50, device=gpu)
    SmallMomentsAdam([parameter], lr=0.1, betas=(0.9, 0.999), seed=1).step()
    torch.testing.assert_close(parameter, torch.full((50,), -0.1, device=gpu))
