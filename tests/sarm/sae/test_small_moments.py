"""Adam with bfloat16 moments: near the plain one, unbiased where rounding to nearest would freeze, the same after a restart."""

from __future__ import annotations

import copy

import torch

from sarm.sae.small_moments import SmallMomentsAdam, rounded_at_random


def gradients(steps: int, size: int) -> torch.Tensor:
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 1, size)


def test_many_steps_stay_near_those_of_plain_adam() -> None:
    ours, plain = torch.zeros(300), torch.zeros(300)
    small = SmallMomentsAdam([ours], lr=1e-3, betas=(0.9, 0.999), seed=1)
    adam = torch.optim.Adam([plain], lr=1e-3)
    for gradient in gradients(200, 300):
        ours.grad, plain.grad = gradient.clone(), gradient.clone()
        small.step()
        adam.step()
    assert small.state[ours]["exp_avg_sq"].dtype == small.state[ours]["exp_avg"].dtype == torch.bfloat16
    assert float((ours - plain).norm() / plain.norm()) < 0.02
    ratio = small.state[ours]["exp_avg_sq"].float() / adam.state[plain]["exp_avg_sq"]
    assert abs(float(ratio.mean()) - 1) < 0.01


def test_first_step_equals_plain_adam_but_for_rounding_of_float32() -> None:
    ours, plain = torch.ones(50), torch.ones(50)
    ours.grad, plain.grad = gradients(1, 50)[0], gradients(1, 50)[0]
    SmallMomentsAdam([ours], lr=1e-2, betas=(0.9, 0.999), seed=1).step()
    torch.optim.Adam([plain], lr=1e-2).step()
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-7)


def test_second_moment_decays_although_each_step_is_below_the_spacing() -> None:
    parameter = torch.zeros(4000)
    small = SmallMomentsAdam([parameter], lr=0.0, betas=(0.9, 0.999), seed=1)
    parameter.grad = torch.full((4000,), 2.0)
    small.step()
    start = float(small.state[parameter]["exp_avg_sq"].float().mean())
    parameter.grad = torch.zeros(4000)
    for _ in range(300):
        small.step()
    # To nearest, 0.999 v rounds back to v for ever.
    assert abs(float(small.state[parameter]["exp_avg_sq"].float().mean()) / (start * 0.999**300) - 1) < 0.01


def test_rounding_keeps_the_mean_and_what_needs_none() -> None:
    draw = torch.Generator().manual_seed(3)
    between = torch.full((20000,), 1.0 + 2**-9)
    rounded = rounded_at_random(between, draw).float()
    assert set(rounded.tolist()) == {1.0, 1.0 + 2**-7}
    assert abs(float(rounded.mean()) - (1.0 + 2**-9)) < 2e-4
    exact = torch.tensor([0.0, 1.0, 1.5, 3e-30])[:3]
    assert torch.equal(rounded_at_random(exact, draw).float(), exact)


def test_restored_state_goes_on_with_the_same_numbers() -> None:
    whole, resumed = torch.zeros(100), torch.zeros(100)
    first = SmallMomentsAdam([whole], lr=1e-3, betas=(0.9, 0.999), seed=5)
    for gradient in gradients(5, 100):
        whole.grad = gradient.clone()
        first.step()
    resumed.copy_(whole)
    second = SmallMomentsAdam([resumed], lr=1e-3, betas=(0.9, 0.999), seed=5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for gradient in gradients(9, 100)[5:]:
        for tensor, adam in ((whole, first), (resumed, second)):
            tensor.grad = gradient.clone()
            adam.step()
    assert torch.equal(whole, resumed)
