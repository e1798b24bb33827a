"""Checkpoints that resume exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import Stop, job_context

from sarm.engine.checkpointer import Checkpointer, optimizer_tensors, restore_optimizer
from sarm.job import Interrupted


def test_checkpoint_comes_back_whole_and_older_ones_are_pruned(tmp_path: Path) -> None:
    context = job_context(tmp_path)
    checkpoints = Checkpointer(context)
    assert checkpoints.latest() is None
    for step in (2, 10):
        checkpoints.save(step, {"w": torch.full((2,), float(step))}, {"cursor": [step, 1]})
    (saved,) = context.checkpoint.iterdir()
    latest = Checkpointer(context).latest()
    assert saved.name == "step-0000000010" and latest is not None
    assert (latest.step, latest.facts, latest.tensors["w"].tolist()) == (10, {"cursor": [10, 1]}, [10.0, 10.0])


def test_half_written_checkpoint_is_not_used_and_is_written_anew(tmp_path: Path) -> None:
    context = job_context(tmp_path)
    Checkpointer(context).save(3, {"w": torch.zeros(1)}, {})
    partial = context.checkpoint / "step-0000000004.partial"
    partial.mkdir()
    (partial / "facts.json").write_text("{")
    latest = Checkpointer(context).latest()
    assert latest is not None and latest.step == 3
    Checkpointer(context).save(4, {"w": torch.ones(1)}, {})
    latest = Checkpointer(context).latest()
    assert latest is not None and latest.step == 4 and not partial.exists()


def test_stop_request_saves_and_then_interrupts(tmp_path: Path) -> None:
    stop = Stop(after=0)
    checkpoints = Checkpointer(job_context(tmp_path, stop=stop))
    assert checkpoints.due()
    with pytest.raises(Interrupted, match="stopped at step 5 on request, checkpoint written; the same command continues"):
        checkpoints.save_if_due(5, {"w": torch.zeros(1)}, {})
    latest = checkpoints.latest()
    assert latest is not None and latest.step == 5


def test_checkpoint_is_due_only_after_its_minutes(tmp_path: Path) -> None:
    assert not Checkpointer(job_context(tmp_path)).due()
    checkpoints = Checkpointer(job_context(tmp_path, checkpoint_minutes=1e-9))
    assert checkpoints.due()
    checkpoints.save_if_due(1, {"w": torch.zeros(1)}, {})
    assert checkpoints.latest() is not None


@pytest.mark.parametrize("optimizer_type", [torch.optim.Adam, torch.optim.AdamW])
def test_restored_optimizer_takes_the_very_same_steps(optimizer_type: type[torch.optim.Optimizer]) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, optimizer_type(layer.parameters(), lr=0.1)

    def train(layer: torch.nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            layer(torch.full((1, 3), float(step))).sum().backward()
            optimizer.step()

    straight, its = make()
    train(straight, its, range(6))
    first, its = make()
    train(first, its, range(3))
    tensors, weights = optimizer_tensors(its), first.state_dict()
    second, its = make()
    second.load_state_dict(weights)
    restore_optimizer(its, tensors)
    train(second, its, range(3, 6))
    assert torch.equal(straight.weight, second.weight)
