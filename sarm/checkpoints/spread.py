"""One model over several devices, for a model that is larger than one of them: blocks in order, each whole on one device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import PreTrainedModel

from sarm.backbone.decoder import blocks_of

DISK = "disk"


@dataclass(frozen=True)
class Spread:
    """The devices of one model in the order of its blocks, by accelerate's names: `cuda:0`, ..., `cpu`, `disk`.

    Whatever is no block (embedding, norm, SAE, head) lies on the first, and so do inputs and results. `folder` is where blocks on
    `disk` are kept, which are read again for each batch.
    """

    devices: tuple[str, ...]
    folder: Path | None = None

    @property
    def first(self) -> torch.device:
        """Where inputs and results are."""
        return torch.device(self.devices[0])

    def places(self, model: nn.Module) -> dict[str, str]:
        """Name -> device of each part of a reward model's backbone, as accelerate's device map: without `model.` before it."""
        backbone = backbone_of(model)
        sizes = [nbytes(block) for block in blocks_of(backbone)]
        # What is no block fills the first device before any block does.
        parts = dealt(sizes, begun=nbytes(model) - sum(sizes), parts=len(self.devices))
        others = [name for name, _ in backbone.named_children() if name != "layers"]
        return {**dict.fromkeys(others, self.devices[0]), **{f"layers.{number}": self.devices[part] for number, part in enumerate(parts)}}

    def device_of(self, name: str, places: dict[str, str]) -> torch.device:
        """Where a tensor of a reward model is read to; what is kept on disk passes through the host's memory."""
        inside = name.removeprefix("model.")
        part = ".".join(inside.split(".")[:2]) if inside.startswith("layers.") else ""
        device = places.get(part, self.devices[0]) if name != inside else self.devices[0]
        return torch.device("cpu" if device == DISK else device)

    def dispatched(self, model: nn.Module) -> None:
        """Let states go from device to device with the blocks that a forward pass of the backbone comes to."""
        backbone, options = backbone_of(model), {"skip_keys": ["past_key_values"], "force_hooks": True}
        with warnings.catch_warnings():
            # Said of every block that lies on disk, which is what was asked for.
            warnings.filterwarnings("ignore", message=".*on the meta device.*")
            dispatch_model(backbone, self.places(model), main_device=self.devices[0], offload_dir=self.folder, **options)


def backbone_of(model: nn.Module) -> PreTrainedModel:
    """The decoder of a reward model."""
    backbone: Any = model.get_submodule("model")
    if not isinstance(backbone, PreTrainedModel):
        raise TypeError(f"a {type(model).__name__} has no decoder whose blocks could be spread")
    return backbone


def nbytes(module: nn.Module) -> int:
    """Bytes of a module's parameters, whether they have storage or not."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def dealt(sizes: Sequence[int], *, begun: int, parts: int) -> list[int]:
    """For each of some things in a row, which of `parts` gets it: neighbours together, the fullest part as empty as can be.

    The first part holds `begun` already.
    """
    loads = sorted({begun + sum(sizes[:end]) for end in range(len(sizes) + 1)} | _sums(sizes))
    return next(found for load in loads if (found := _within(sizes, begun=begun, parts=parts, load=load)) is not None)


def _sums(sizes: Sequence[int]) -> set[int]:
    return {sum(sizes[start:end]) for start in range(len(sizes)) for end in range(start + 1, len(sizes) + 1)}


def _within(sizes: Sequence[int], *, begun: int, parts: int, load: int) -> list[int] | None:
    """The same with no part fuller than `load` (but for what the first one holds already), None where that cannot be."""
    found: list[int] = []
    part, held = 0, begun
    for size in sizes:
        if held + size > load:
            part, held = part + 1, 0
        if part == parts or held + size > load:
            return None
        held += size
        found.append(part)
    return found
