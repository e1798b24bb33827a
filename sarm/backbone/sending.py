"""Whole numbers made on the host and sent to the device in one copy that the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(numbers: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The same int64 tensors on the device, as views of one that was copied.

    To a GPU the copy goes from pinned memory: the host goes on at once, and the device's later work waits for it.
    """
    whole = torch.cat([one.flatten() for one in numbers])
    if device.type == "cuda":
        whole = whole.pin_memory()
    arrived = whole.to(device, non_blocking=True).split([one.numel() for one in numbers])
    return [one.view(source.shape) for one, source in zip(arrived, numbers, strict=True)]
