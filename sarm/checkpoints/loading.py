"""Models made without weights and filled from files: the one way in which a model comes off a disk.

Nothing is drawn, set to a first value or written twice: a parameter has no storage until its tensor is read, and then has it in
the precision and on the device in which it will be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from sarm.checkpoints.quantized import refuse_other_numbers, refuse_quantized_names
from sarm.checkpoints.spread import Spread
from sarm.checkpoints.tensors import TensorSource
from sarm.job import UsageProblem

CPU = torch.device("cpu")
# One device for a whole model, or several for the blocks of a reward model.
Place = torch.device | Spread
# Bytes from which on a tensor that is on disk as it is wanted stays there, mapped, until something changes it; smaller ones are
# copied, which costs nothing and gives them torch's own alignment.
MAPPED_FROM = 1 << 20


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules that are made inside have parameters without storage (on torch's meta device), and draw no random number.

    Buffers are computed as ever: rotary frequencies and other constants are in no file.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():
        yield


def fill(
    module: nn.Module, source: TensorSource, names: Mapping[str, str], *, what: str, device: Place = CPU, asks: str = "the config"
) -> None:
    """Give a module that was made `without_weights` its tensors, each in the precision that the module has for it, on `device`.

    `names` maps the module's names to the source's. The module's other tensors must have values by then; they move to `device`.
    Never more than the module and one tensor is in memory. Raises UsageProblem that names a missing or wrongly shaped tensor
    (`asks` is what tells the shape) and a quantised one, RuntimeError where a parameter is left without value.
    """
    refuse_quantized_names(source.names, lambda name: place_in(source, name, what))
    missing = [theirs for theirs in names.values() if theirs not in source.names]
    if missing:
        raise UsageProblem(f"{what}: tensor {missing[0]!r} is missing ({len(missing)} in all); is this the right model?")
    places, device_of = _places(module), _devices(module, device)

    def take(ours: str, tensor: Tensor) -> bool:
        empty, owners = places[ours]
        if empty.shape != tensor.shape:
            shapes = f"{list(tensor.shape)}, {asks} asks for {list(empty.shape)}"
            raise UsageProblem(f"{what}: tensor {names[ours]!r} has shape {shapes}")
        # The one place where what a file holds becomes a model's: whatever is no float would be copied as if it were one.
        refuse_other_numbers(tensor, name=names[ours], where=place_in(source, names[ours], what), wanted=empty.dtype)
        value = _placed(tensor, dtype=empty.dtype, device=device_of(ours))
        filled = nn.Parameter(value, requires_grad=empty.requires_grad) if isinstance(empty, nn.Parameter) else value
        for owner, leaf in owners:
            setattr(owner, leaf, filled)
        return value.data_ptr() == tensor.data_ptr() or tensor.nbytes < MAPPED_FROM

    with torch.no_grad():
        source.read(names.items(), take)
    finish(module, device=device, what=what)


def place_in(source: TensorSource, name: str, what: str) -> str:
    """How the place of a tensor is called in a message: the folder, and the file where it is known."""
    file = source.file_of(name)
    return what if file in ("", what) else f"{what}/{file}"


def finish(module: nn.Module, *, device: Place, what: str) -> None:
    """Move what is not there yet to `device`. Raises RuntimeError where a parameter was left without value."""
    tensors = dict(chain(module.named_parameters(), module.named_buffers()))
    left = [name for name, tensor in tensors.items() if tensor.is_meta]
    if left:
        raise RuntimeError(f"{what}: nothing gave {left[0]!r} a value ({len(left)} in all)")
    if isinstance(device, torch.device):
        if any(tensor.device != device for tensor in tensors.values()):
            module.to(device)
        return
    device_of = _devices(module, device)
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False):
            parameter.data = parameter.data.to(device_of(f"{path}.{name}"))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to(device_of(f"{path}.{name}")))


def _devices(module: nn.Module, device: Place) -> Callable[[str], torch.device]:
    """Where each tensor of a module goes, by its name."""
    if isinstance(device, torch.device):
        return lambda name: device
    places = device.places(module)
    return lambda name: device.device_of(name, places)


class Slot(NamedTuple):
    """A parameter or buffer, and where it lies: in more than one place where weights are tied."""

    tensor: Tensor
    owners: list[tuple[nn.Module, str]]


def _places(module: nn.Module) -> dict[str, Slot]:
    found: dict[str, Slot] = {}
    of_tensor: dict[int, Slot] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for leaf, tensor in chain(owner.named_parameters(recurse=False), owner.named_buffers(recurse=False)):
            place = of_tensor.setdefault(id(tensor), Slot(tensor, []))
            place.owners.append((owner, leaf))
            found[f"{path}.{leaf}" if path else leaf] = place
    return found


def _placed(tensor: Tensor, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor as it is wanted. It goes to the device first: conversion is slow on a CPU."""
    value = tensor.to(device).to(dtype).contiguous()
    return value.clone() if value.data_ptr() == tensor.data_ptr() and value.nbytes < MAPPED_FROM else value
