"""Changes of a checkpoint's tensors that a reader must refuse by name; for `tiny.edit_tensors`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[[dict[str, Tensor]], None]


def drop(name: str) -> Change:
    """Leaves a tensor out."""

    def change(tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    return change


def reshape(name: str) -> Change:
    """Keeps only the first three rows of a tensor."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = tensors[name][:3]

    return change


def add(name: str) -> Change:
    """Adds a tensor that nobody asked for."""

    def change(tensors: dict[str, Tensor]) -> None:
        tensors[name] = torch.zeros(1)

    return change
