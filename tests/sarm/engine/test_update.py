"""One process's optimizer step: its float32 copies, its gradients one at a time, and its states in the host's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sarm.config.train import RewardTrainingConfig
from sarm.engine.checkpointer import Checkpoint
from sarm.engine.group import ALONE
from sarm.engine.update import PlainUpdate
from sarm.engine.zero import zero_config
from sarm.job import Resources, UsageProblem
from sarm.reward.update import layout_of, reward_update

ROWS = torch.randn(5, 8, 6, generator=torch.Generator().manual_seed(7))


class Mixed(nn.Module):
    """Blocks of low precision and a head in float32, as a reward model has; one weight is never used."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(6, 6).to(torch.bfloat16) for _ in range(2))
        self.score = nn.Linear(6, 1, bias=False)
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw) / 2)

    def forward(self, x: Tensor) -> Tensor:
        states = x.to(torch.bfloat16)
        for block in self.blocks:
            states = torch.tanh(block(states))
        return self.score(states.float()).pow(2).mean()


def groups_of(model: Mixed) -> list[dict[str, Any]]:
    head = list(model.score.parameters())
    body = [one for one in model.parameters() if one is not head[0]]
    return [{"params": head, "lr": 0.0, "peak": 1e-2}, {"params": body, "lr": 0.0, "peak": 1e-3}]


def plain(model: Mixed, *, offload: bool = False) -> PlainUpdate:
    optimizer = torch.optim.AdamW(groups_of(model), weight_decay=0.01, fused=True)
    return PlainUpdate(model, model, optimizer, max_norm=0.5, kind="train_reward", offload=offload)


def trained(update: Any, steps: range) -> list[float]:
    norms = []
    for step in steps:
        update.begin(1.0)
        update.backward(update.forward(ROWS[step]), last=True)
        norms.append(update.step())
    return norms


def test_weights_that_move_one_at_a_time_move_as_all_at_once() -> None:
    """Against the plain loop: every float32 gradient made, then one step of torch's AdamW. Bit for bit."""
    model, other = Mixed(), Mixed()
    norms = trained(plain(model), range(5))
    masters = [one.detach().float().clone() for one in groups_of(other)[1]["params"]]
    groups = groups_of(other)
    low, groups[1]["params"] = groups[1]["params"], masters
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    expected = []
    for step in range(5):
        other.zero_grad()
        other(ROWS[step]).backward()
        expected.append(float(nn.utils.clip_grad_norm_(other.parameters(), 0.5)))
        for parameter, master in zip(low, masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(low, masters, strict=True):
                parameter.copy_(master)
    assert norms == expected
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert not torch.equal(model.blocks[0].weight, Mixed().blocks[0].weight) and torch.equal(model.unused, Mixed().unused)


def test_a_step_leaves_no_gradient_behind() -> None:
    model = Mixed()
    update = plain(model)
    trained(update, range(1))
    assert all(one.grad is None for one in model.parameters())
    assert all(one.grad is None for group in update._optimizer.param_groups for one in group["params"])


def test_states_in_the_host_give_the_same_bits() -> None:
    here, there = Mixed(), Mixed()
    assert trained(plain(here), range(5)) == trained(plain(there, offload=True), range(5))
    assert all(torch.equal(one, two) for one, two in zip(here.parameters(), there.parameters(), strict=True))


@pytest.mark.parametrize(("first", "then"), [(False, True), (True, False), (True, True)])
def test_a_checkpoint_goes_on_with_the_states_on_the_card_or_in_the_host(first: bool, then: bool) -> None:
    whole, begun, resumed = Mixed(), Mixed(), Mixed()
    trained(plain(whole), range(5))
    update = plain(begun, offload=first)
    trained(update, range(3))
    saved = {name: value.detach().clone() for name, value in update.tensors().items()}
    again = plain(resumed, offload=then)
    again.restore(Checkpoint(step=3, tensors=saved, facts={}))
    trained(again, range(3, 5))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_deepspeed_is_asked_for_states_in_the_host_and_compiles_nothing() -> None:
    sizes: dict[str, Any] = {"rows": 8, "processes": 2, "dtype": torch.bfloat16, "max_norm": 1.0, "universal": False}
    asked = zero_config(stage=2, offload=True, **sizes)
    assert asked["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": False}
    assert asked["zero_force_ds_cpu_optimizer"] is False and "optimizer" not in asked
    assert "offload_optimizer" not in zero_config(stage=2, **sizes)["zero_optimization"]
    with pytest.raises(UsageProblem, match="ZeRO stages 1 to 3 alone"):
        zero_config(stage=0, offload=True, **sizes)


# --- bfloat16 moments ---------------------------------------------------------------------------------------------------------------


def small(model: Mixed, resources: Resources, **changes: Any) -> Any:
    config = RewardTrainingConfig(layer=1, weight_decay=0.01, max_grad_norm=0.5, **changes)
    given: dict[str, Any] = {"group": ALONE, "dtype": torch.bfloat16, "saved": None}
    return reward_update(model, model, groups_of(model), config=config, resources=resources, **given)


@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_bfloat16_moments_train_nearly_the_same_and_resume_exactly(offload: Any) -> None:
    whole, begun, resumed, full = Mixed(), Mixed(), Mixed(), Mixed()
    needs = Resources(offload=offload)
    trained(small(whole, needs, moments="bfloat16"), range(5))
    update = small(begun, needs, moments="bfloat16")
    trained(update, range(3))
    saved = {name: value.detach().clone() for name, value in update.tensors().items()}
    assert {value.dtype for name, value in saved.items() if "exp_avg" in name} == {torch.bfloat16}
    again = small(resumed, needs, moments="bfloat16")
    again.restore(Checkpoint(step=3, tensors=saved, facts={}))
    trained(again, range(3, 5))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))
    trained(small(full, needs), range(5))
    # Five steps of at most 1e-2 and 1e-3 each.
    assert float((whole.score.weight - full.score.weight).detach().abs().max()) < 1e-3
    assert not torch.equal(whole.score.weight, full.score.weight)


def test_bfloat16_moments_decay_weights_as_adamw_does() -> None:
    """Without a gradient only the decay is left."""
    model = Mixed()
    update = small(model, Resources(), moments="bfloat16")
    before = model.score.weight.detach().clone()
    update.begin(1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update.step()
    torch.testing.assert_close(model.score.weight.detach(), before * (1 - 1e-2 * 0.01), rtol=1e-6, atol=0)


def test_bfloat16_moments_are_refused_where_processes_would_share_them() -> None:
    with pytest.raises(UsageProblem, match=r"does not go with 1 processes and ZeRO stage 2; set it to float32, or --set"):
        small(Mixed(), Resources(zero_stage=2), moments="bfloat16")


def test_layouts_of_checkpoints() -> None:
    assert [layout_of(Resources(zero_stage=2)), layout_of(Resources(processes=2)), layout_of(Resources())] == ["zero-2", "zero-0", "plain"]
