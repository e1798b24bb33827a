"""A gradient that is not finite updates nothing, whoever owns the optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sarm.engine.group import join
from sarm.engine.update import PlainUpdate, Update
from sarm.engine.zero import ZeroUpdate
from sarm.job import Resources


class Sum(nn.Module):
    """Its loss is finite; with `broken` its gradient is not."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3, dtype=dtype)

    def forward(self, x: Tensor, broken: bool) -> Tensor:
        loss = self.inner(x).float().sum()
        return loss + (self.inner.weight.float() * 0).sqrt().sum() if broken else loss


def optimizer_of(module: nn.Module, **options: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": list(module.parameters()), "lr": 0.0, "peak": 0.1}], **options)


def stepped(update: Update, dtype: torch.dtype, *, broken: bool) -> float:
    update.begin(1.0)
    loss = update.forward(torch.ones(2, 4, dtype=dtype), broken)
    assert torch.isfinite(loss)
    update.backward(loss, last=True)
    return update.step()


def holds(update: Update, dtype: torch.dtype) -> None:
    before = update.weights()
    assert not math.isfinite(stepped(update, dtype, broken=True))
    for name, value in update.weights().items():
        assert torch.equal(value, before[name]), name
    assert math.isfinite(stepped(update, dtype, broken=False))
    assert any(not torch.equal(value, before[name]) for name, value in update.weights().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_one_process_nothing_moves(dtype: torch.dtype) -> None:
    module = Sum(dtype)
    holds(PlainUpdate(module, module, optimizer_of(module), max_norm=1.0, kind="train_reward"), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_under_deepspeed_nothing_moves(stage: int, dtype: torch.dtype) -> None:
    group, module = join(Resources(zero_stage=stage or 1)), Sum(dtype)
    update = ZeroUpdate(
        module, module, optimizer_of(module, foreach=True), group=group, stage=stage, rows=2, dtype=dtype, max_norm=1.0,
        kind="train_reward", saved=None,
    )  # fmt: skip
    try:
        holds(update, dtype)
    finally:
        update.close()
