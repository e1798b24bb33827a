"""Whole numbers travel in one copy, from pinned memory to a GPU, and arrive as they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sarm.backbone.sending import sent

NUMBERS = [torch.tensor([[3, 1], [4, 1]]), torch.tensor([5, 9, 2]), torch.empty(0, dtype=torch.long)]


def test_numbers_arrive_in_their_shapes() -> None:
    for ours, theirs in zip(sent(NUMBERS, torch.device("cpu")), NUMBERS, strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == torch.int64


def test_a_gpu_gets_one_copy_from_pinned_memory_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: told.append(("pinned", self.numel())) or self)
    monkeypatch.setattr(Tensor, "to", lambda self, device, non_blocking: told.append((str(device), non_blocking)) or self)
    arrived = sent(NUMBERS, torch.device("cuda"))
    assert told == [("pinned", 7), ("cuda", True)] and [list(one.shape) for one in arrived] == [[2, 2], [3], [0]]
