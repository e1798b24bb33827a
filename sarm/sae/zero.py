"""The SAE's step with gradients that are computed by hand, offered to an engine that expects autograd: ZeRO shares Adam's states."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sarm.config.train import SAETrainingConfig
from sarm.engine.checkpointer import Checkpoint
from sarm.engine.devices import torch_dtype
from sarm.engine.group import ProcessGroup
from sarm.engine.update import Update
from sarm.engine.zero import ZeroUpdate
from sarm.job import UsageProblem
from sarm.sae.model import TopKSAE
from sarm.sae.step import AuxK, Objective, SAETensors, Workspace, loss_and_gradients
from sarm.sae.update import StepResult, learning_rate_at, renormalizes, together


class _GivenGradients(torch.autograd.Function):
    """A loss whose gradients are known: backward hands them out instead of computing any."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: tuple[Tensor, ...], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(gradient * outer[0] for gradient in ctx.gradients))


class StepOutput(NamedTuple):
    """Mean loss over the rows, which latents fired, `[n_latents]`, and a scalar that is finite only if the gradients are."""

    loss: Tensor
    fired: Tensor
    total: Tensor


class SAEModule(nn.Module):
    """The parameters of a TopK SAE as an engine wraps them; `forward` is the loss of some rows."""

    def __init__(self, sae: TopKSAE, *, objective: Objective, auxk_weight: float, workspace: Workspace) -> None:
        super().__init__()
        self.k, self._objective, self._auxk_weight, self._workspace = sae.k, objective, auxk_weight, workspace
        self.pre_bias = nn.Parameter(sae.pre_bias.detach().clone())
        self.latent_bias = nn.Parameter(sae.latent_bias.detach().clone())
        self.encoder = nn.Parameter(sae.encoder.weight.detach().clone())
        self.decoder_rows = nn.Parameter(sae.decoder_rows().detach().clone())

    def forward(self, x: Tensor, dead: Tensor) -> StepOutput:
        """Prepared rows `[rows, hidden_size]`, and which latents count as dead for AuxK, `[n_latents]`."""
        weights = SAETensors(self.pre_bias, self.latent_bias, self.encoder, self.decoder_rows)
        auxk = AuxK(weight=self._auxk_weight, dead=dead) if self._auxk_weight else None
        plain = SAETensors(*(weight.detach() for weight in weights))
        dtype = plain.encoder.dtype
        found = loss_and_gradients(
            plain, x, k=self.k, objective=self._objective, auxk=auxk, product_dtype=dtype, workspace=self._workspace
        )
        loss = _GivenGradients.apply(found.loss, tuple(found.gradients), *weights)
        return StepOutput(loss, found.fired, found.total)


def write_back(update: Update, sae: TopKSAE) -> None:
    """Bring the trained weights into the SAE of the first process. All must call it."""
    weights = update.weights()
    if not weights:
        return
    with torch.no_grad():
        sae.pre_bias.copy_(weights["pre_bias"])
        sae.latent_bias.copy_(weights["latent_bias"])
        sae.encoder.weight.copy_(weights["encoder"])
        sae.decoder_rows().copy_(weights["decoder_rows"])


def unit_rows(rows: Tensor) -> Tensor:
    """The same rows with unit length."""
    return rows / rows.norm(dim=1, keepdim=True)


class ZeroSAEUpdate:
    """As SAEUpdate, with optimizer states, gradients and perhaps weights shared by the processes as a ZeRO stage says.

    Raises UsageProblem for precisions of moments and products that only one process's own Adam has.
    """

    def __init__(
        self,
        config: SAETrainingConfig,
        sae: TopKSAE,
        *,
        group: ProcessGroup,
        stage: int,
        workspace: Workspace,
        saved: Checkpoint | None,
        offload: bool = False,
    ) -> None:
        if config.moments != "as-dtype" or config.products != "as-dtype":
            raise UsageProblem(
                f"sae.moments = {config.moments!r} and sae.products = {config.products!r} do not go with ZeRO stage {stage}; "
                "set both to as-dtype, or resources.train_sae.zero_stage = 0"
            )
        sae.normalize_decoder()
        self.config, self.sae, self.group, self.steps = config, sae, group, config.vectors // config.batch_vectors
        self.module = SAEModule(sae, objective=config.objective, auxk_weight=config.auxk_weight, workspace=workspace)
        betas = config.beta1, config.beta2
        groups = [{"params": list(self.module.parameters()), "peak": config.learning_rate}]
        optimizer = torch.optim.Adam(groups, lr=0.0, betas=betas, fused=offload or None)
        self.update = ZeroUpdate(
            self.module,
            self.module,
            optimizer,
            group=group,
            stage=stage,
            rows=config.batch_vectors,
            dtype=torch_dtype(config.dtype),
            max_norm=0.0,
            kind=config.kind,
            saved=saved,
            offload=offload,
        )
        self.layout = self.update.layout
        self.silent_for = torch.zeros(sae.n_latents, dtype=torch.int64, device=group.device)

    def step(self, x: Tensor, index: int) -> StepResult:
        """See SAEUpdate."""
        rate = learning_rate_at(self.config, step=index, steps=self.steps)
        self.update.begin(rate / self.config.learning_rate)
        found = self.update.forward(x, self.silent_for >= self.config.dead_after_vectors)
        loss, fired = together(self.group, found.loss.detach(), found.total, found.fired, index)
        self.update.backward(found.loss / self.group.size, last=True)
        norm = self.update.step()
        if not math.isfinite(norm):
            raise UsageProblem(f"the SAE's gradient has norm {norm} at step {index}; lower the learning rate or look at the hidden states")
        if renormalizes(self.config, index, self.steps):
            self.update.replace(self.module.decoder_rows, unit_rows)
        self.silent_for = torch.where(fired, 0, self.silent_for + len(x) * self.group.size)
        return StepResult(loss=loss, learning_rate=rate, fired=fired)

    def tensors(self) -> dict[str, Tensor]:
        """See SAEUpdate."""
        return {"silent_for": self.silent_for}

    def save_shards(self, folder: str) -> None:
        """What each process keeps; all must call it."""
        self.update.save_shards(folder)

    def restore(self, saved: Checkpoint) -> None:
        """See SAEUpdate."""
        self.update.restore(saved)
        self.silent_for = saved.tensors["silent_for"].to(self.silent_for.device)

    def collect(self) -> None:
        """Bring the weights into the first process's SAE; all must call it."""
        write_back(self.update, self.sae)
