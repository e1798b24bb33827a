"""The tensors of a published head, read whole and taken one by one, so that none is missing, misshapen or left over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sarm.checkpoints.leftovers import Known, refuse_unknown
from sarm.checkpoints.loading import without_weights
from sarm.checkpoints.quantized import refuse_other_numbers
from sarm.checkpoints.tensors import HeldTensors
from sarm.job import UsageProblem


class HeadTensors:
    """Tensors by their published names, in float32."""

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self._left = dict(tensors)
        self.what = what

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor of that name; None in `shape` accepts any size. Raises UsageProblem for a missing, misshapen or quantised one."""
        if name not in self._left:
            raise UsageProblem(f"{self.what}: tensor {name!r} is missing; is this the right model?")
        tensor = self._left.pop(name)
        if tensor.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape, strict=True)):
            expected = ["any" if size is None else size for size in shape]
            raise UsageProblem(f"{self.what}: tensor {name!r} has shape {list(tensor.shape)}, the model asks for {expected}")
        refuse_other_numbers(tensor, name=name, where=self.what)
        # A copy: what is on disk must not be changed through a head, nor a head with the file.
        return tensor.to(torch.float32, copy=True)

    def numbers(self, prefix: str) -> list[int]:
        """Numbers N of the tensors `<prefix>.N.weight`, ascending."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.weight")
        return sorted(int(found[1]) for name in self._left if (found := pattern.fullmatch(name)))

    def has(self, name: str) -> bool:
        """Whether a tensor of that name is left."""
        return name in self._left

    def linear(self, name: str, *, inputs: int, bias: bool = True) -> nn.Linear:
        """The layer `<name>.weight` `[any, inputs]`, with `<name>.bias` if the layout has one."""
        weight = self.take(f"{name}.weight", None, inputs)
        with without_weights():
            layer = nn.Linear(inputs, len(weight), bias=bias)
        layer.weight = nn.Parameter(weight)
        if bias:
            layer.bias = nn.Parameter(self.take(f"{name}.bias", len(weight)))
        return layer

    def batch_norm(self, name: str, *, width: int) -> nn.BatchNorm1d:
        """A batch norm with its running statistics."""
        with without_weights():
            layer = nn.BatchNorm1d(width)
        for part in ("weight", "bias"):
            setattr(layer, part, nn.Parameter(self.take(f"{name}.{part}", width)))
        for part in ("running_mean", "running_var"):
            setattr(layer, part, self.take(f"{name}.{part}", width))
        return layer

    def perceptron(self, prefix: str, *, inputs: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
        """Linear layers `<prefix>.N` in the order of N with an activation between each two.

        Raises UsageProblem where there is no such layer.
        """
        numbers = self.numbers(prefix)
        if not numbers:
            raise UsageProblem(f"{self.what}: no tensor '{prefix}.<number>.weight'; is this the right model?")
        layers: list[nn.Module] = []
        for number in numbers:
            layer = self.linear(f"{prefix}.{number}", inputs=inputs)
            layers += [activation(), layer] if layers else [layer]
            inputs = layer.out_features
        return layers

    def finish(self, known: Known) -> None:
        """Raises UsageProblem that names a tensor which nobody took and which is not known to be harmless."""
        meaning = "the config and the weights do not belong together"
        refuse_unknown(HeldTensors(self._left), self._left, layout="decoder", what=self.what, meaning=meaning, known=known)


def outputs_of(layers: Sequence[nn.Module]) -> int:
    """How many values the last of these layers gives. Raises TypeError where it is not linear."""
    last = layers[-1]
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the last layer is a {type(last).__name__}, not linear")
    return last.out_features
