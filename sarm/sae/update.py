"""One optimizer step of an SAE, in one process or in several that each keep all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sarm.config.train import SAETrainingConfig
from sarm.engine.checkpointer import Checkpoint, optimizer_tensors, restore_optimizer
from sarm.engine.devices import torch_dtype
from sarm.engine.group import ALONE, ProcessGroup
from sarm.engine.update import PLAIN, refuse_layout
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE
from sarm.sae.pair_updates import Optimizer, pair_kernels, step_by_pairs
from sarm.sae.small_moments import SmallMomentsAdam
from sarm.sae.step import AuxK, Descent, LossAndGradients, SAETensors, Workspace, descend


class StepResult(NamedTuple):
    """What one optimizer step reports."""

    loss: float
    learning_rate: float
    fired: Tensor


def learning_rate_at(config: SAETrainingConfig, *, step: int, steps: int) -> float:
    """Learning rate before step `step` (0-based) of `steps`.

    `constant`: linear warm-up, then flat. `authors`: flat to 80 %, then (steps - step - warmup) / (steps - warmup - steps // 5), which
    jumps to about 0.2 and is 0 for the last `warmup` steps. Source: schrieffer-z/sae, src/utils.py:396-403.
    """
    warmup = int(steps * config.warmup_fraction)
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant" or step < steps - steps // 5:
        return config.learning_rate
    return config.learning_rate * max(0.0, (steps - step - warmup) / (steps - warmup - steps // 5))


@dataclass
class SAEUpdate:
    """One SAE with its optimizer: what a step does to prepared vectors `[batch, hidden_size]`.

    Updates of one process may share a workspace: they take turns with its buffers. Each process of a group is given its share of
    the batch; all keep the whole SAE and its optimizer.
    """

    config: SAETrainingConfig
    sae: TopKSAE
    steps: int
    workspace: Workspace = field(default_factory=Workspace)
    group: ProcessGroup = ALONE

    layout = PLAIN

    def __post_init__(self) -> None:
        sae = self.sae
        self.weights = SAETensors(sae.pre_bias.detach(), sae.latent_bias.detach(), sae.encoder.weight.detach(), sae.decoder_rows())
        self.optimizer = self._adam()
        self.silent_for = torch.zeros(sae.n_latents, dtype=torch.int64, device=sae.latent_bias.device)
        sae.normalize_decoder()

    def _adam(self) -> Optimizer:
        rate, betas = self.config.learning_rate, (self.config.beta1, self.config.beta2)
        if self.config.moments == "bfloat16":
            return SmallMomentsAdam(self.weights, lr=rate, betas=betas, seed=self.config.seed)
        return torch.optim.Adam(self.weights, lr=rate, betas=betas, fused=True)

    def descend(self, x: Tensor) -> Descent:
        """The objective on prepared vectors, which latents fired, and the gradients."""
        auxk = None
        if self.config.auxk_weight:
            auxk = AuxK(weight=self.config.auxk_weight, dead=self.silent_for >= self.config.dead_after_vectors)
        return descend(
            self.weights,
            x,
            k=self.sae.k,
            objective=self.config.objective,
            auxk=auxk,
            product_dtype=self.weights.encoder.dtype if self.config.products == "as-dtype" else torch_dtype(self.config.products),
            workspace=self.workspace,
        )

    def loss_and_gradients(self, x: Tensor) -> LossAndGradients:
        """As `descend`, with gradients formed, which the next step of the workspace overwrites."""
        return self.descend(x).formed(self.weights, self.workspace)

    def step(self, x: Tensor, index: int) -> StepResult:
        """One optimizer step (0-based `index`). Raises UsageProblem on a loss or gradient that is not finite, with nothing updated."""
        rate = learning_rate_at(self.config, step=index, steps=self.steps)
        for one in self.optimizer.param_groups:
            one["lr"] = rate
        found = self.descend(x)
        loss, fired = together(self.group, found.loss, found.total(), found.fired, index)
        triton = pair_kernels(self.weights) if self.group.size == 1 else None
        if triton is not None:
            step_by_pairs(self.optimizer, self.weights, found, triton)
        else:
            self._step_on_gradients(found)
        if renormalizes(self.config, index, self.steps):
            self.sae.normalize_decoder()
        self.silent_for = torch.where(fired, 0, self.silent_for + len(x) * self.group.size)
        return StepResult(loss=loss, learning_rate=rate, fired=fired)

    def _step_on_gradients(self, found: Descent) -> None:
        """Form the gradients, add up those of all processes, and let the optimizer step."""
        for weight, gradient in zip(self.weights, found.gradients(self.weights, self.workspace), strict=True):
            weight.grad = gradient if self.group.size == 1 else gradient / self.group.size
            self.group.add_up(weight.grad)
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """What the first process writes into a checkpoint."""
        return {**sae_tensors(self.sae), **optimizer_tensors(self.optimizer), "silent_for": self.silent_for}

    def save_shards(self, folder: str) -> None:
        """Nothing: the first process has all."""

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, of any number of processes. Raises UsageProblem for one with ZeRO."""
        refuse_layout(saved, self.layout, kind=self.config.kind)
        self.sae.load_state_dict({n.removeprefix("sae."): value for n, value in saved.tensors.items() if n.startswith("sae.")})
        restore_optimizer(self.optimizer, saved.tensors)
        self.silent_for = saved.tensors["silent_for"].to(self.silent_for.device)

    def collect(self) -> None:
        """Nothing: the SAE is what was trained."""


def together(group: ProcessGroup, loss: Tensor, total: Tensor, fired: Tensor, index: int) -> tuple[float, Tensor]:
    """Mean loss of all shares of the batch, and the latents that fired in any.

    `total` is a scalar that is finite only if the gradients are. Raises UsageProblem in all processes where one of the two is not.
    """
    # One transfer for both: it waits for all that was asked of the device.
    mean, gradients = (value / group.size for value in group.totals(torch.stack((loss.double(), total.double())).tolist()))
    for what, value in (("loss", mean), ("gradient", gradients)):
        if not math.isfinite(value):
            raise UsageProblem(f"the SAE's {what} is {value} at step {index}; lower the learning rate or look at the hidden states")
    if group.size == 1:
        return mean, fired
    counts = fired.float()
    group.add_up(counts)
    return mean, counts > 0


def renormalizes(config: SAETrainingConfig, index: int, steps: int) -> bool:
    """Whether the decoder's columns get unit length after step `index`."""
    return index % config.unit_norm_every == 0 or index == steps - 1


def sae_tensors(sae: TopKSAE) -> dict[str, Tensor]:
    """An SAE's state for a checkpoint."""
    return {f"sae.{name}": value for name, value in sae.state_dict().items()}
