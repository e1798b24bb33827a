"""One optimizer step of a model in one process: rates, gradients, clipping, weights, and what a checkpoint holds of them."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sarm.engine.checkpointer import Checkpoint, optimizer_tensors, restore_optimizer
from sarm.job import UsageProblem

PLAIN = "plain"


class Update(Protocol):
    """What a training loop needs of its optimizer, in one process or in many.

    A step is `begin`, then `forward` and `backward` for each micro-batch (`last` with the last one), then `step`.
    """

    layout: str

    def begin(self, multiplier: float) -> None:
        """Set each group's learning rate to its `peak` times `multiplier` and forget the gradients."""

    def forward(self, *inputs: Any) -> Any:
        """What the module gives for a micro-batch."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of one process's share of the global batch's loss: gradients of all processes are summed."""

    def step(self) -> float:
        """Clip and update. Gives the norm of the gradient before clipping; where it is not finite nothing is updated."""

    def weights(self) -> dict[str, Tensor]:
        """Whole weights by the model's names, in the first process; it may be empty in others. All must call it."""

    def tensors(self) -> dict[str, Tensor]:
        """What the first process writes into a checkpoint."""

    def save_shards(self, folder: str) -> None:
        """Write what each process keeps of its own; all must call it."""

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint. Raises UsageProblem for one that this way of training cannot read."""

    def close(self) -> None:
        """Give back the memory; nothing can be asked afterwards."""


def refuse_layout(saved: Checkpoint, layout: str, *, kind: str) -> None:
    """Raises UsageProblem when a checkpoint was written by another way of training than `layout`."""
    if saved.layout == layout:
        return
    written = "without DeepSpeed" if saved.layout == PLAIN else f"with ZeRO stage {saved.layout.rpartition('-')[2]}"
    stage = 0 if saved.layout == PLAIN else int(saved.layout.rpartition("-")[2])
    raise UsageProblem(
        f"the checkpoint of step {saved.step} was written {written} by {saved.processes} processes; continue it with "
        f"--set resources.{kind}.processes={saved.processes} --set resources.{kind}.zero_stage={stage}, or begin anew with --fresh"
    )


class PlainUpdate:
    """torch's own optimizer in one process.

    Weights of low precision have float32 copies that are what moves: a step of 4e-6 would vanish in bfloat16's rounding. With `offload`
    these copies and the moments lie in the host's memory, those of float32 weights too, and the step is computed there.
    """

    layout = PLAIN

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        max_norm: float,
        kind: str,
        offload: bool = False,
    ) -> None:
        self._module, self._model, self._optimizer, self._max_norm, self._kind = module, model, optimizer, max_norm, kind
        self._offload = offload
        self._masters: list[tuple[Tensor, Tensor]] = []
        self._own: list[Tensor] = []
        for group in optimizer.param_groups:
            group["params"] = [self._master(parameter) for parameter in group["params"]]

    def _master(self, parameter: Tensor) -> Tensor:
        if parameter.dtype == torch.float32 and not self._offload:
            self._own.append(parameter)
            return parameter
        place = torch.device("cpu") if self._offload else parameter.device
        master = parameter.detach().to(device=place, dtype=torch.float32, copy=True)
        self._masters.append((parameter, master))
        return master

    def begin(self, multiplier: float) -> None:
        """See Update."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * multiplier
        self._module.zero_grad(set_to_none=True)

    def forward(self, *inputs: Any) -> Any:
        """See Update."""
        return self._module(*inputs)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See Update."""
        loss.backward()

    def step(self) -> float:
        """See Update. The float32 gradient of one weight at a time: all of them at once would be a quarter of what is held besides."""
        norm = float(torch.nn.utils.clip_grad_norm_([p for p in self._model.parameters() if p.requires_grad], self._max_norm))
        if not math.isfinite(norm):
            return norm
        self._optimizer.step()
        for parameter in self._own:
            parameter.grad = None
        for parameter, master in self._masters:
            gradient = parameter.grad
            if gradient is None:
                continue
            # The others have no gradient now, so that this moves one weight alone.
            master.grad = gradient.to(device=master.device, dtype=torch.float32)
            parameter.grad = gradient = None
            self._optimizer.step()
            master.grad = None
            with torch.no_grad():
                parameter.copy_(master)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """See Update."""
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """See Update."""
        weights = {f"model/{name}": value for name, value in self._model.state_dict().items()}
        masters = {f"master.{index}": master for index, (_, master) in enumerate(self._low())}
        return {**weights, **masters, **optimizer_tensors(self._optimizer)}

    def _low(self) -> list[tuple[Tensor, Tensor]]:
        """The copies that hold more than their weights do."""
        return [(parameter, master) for parameter, master in self._masters if parameter.dtype != torch.float32]

    def save_shards(self, folder: str) -> None:
        """Nothing: the first process has all."""

    def restore(self, saved: Checkpoint) -> None:
        """See Update. With or without `offload`, whichever wrote it."""
        refuse_layout(saved, self.layout, kind=self._kind)
        weights = {name.removeprefix("model/"): value for name, value in saved.tensors.items() if name.startswith("model/")}
        self._model.load_state_dict(weights)
        for parameter, master in self._masters:
            master.copy_(parameter.detach())
        for index, (_, master) in enumerate(self._low()):
            master.copy_(saved.tensors[f"master.{index}"])
        restore_optimizer(self._optimizer, saved.tensors)

    def close(self) -> None:
        """Nothing: the memory goes with the object."""
