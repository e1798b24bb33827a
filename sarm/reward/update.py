"""The optimizer of a reward model's training: one process's own, or DeepSpeed's around several; on the card or in the host's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sarm.config.train import RewardTrainingConfig
from sarm.engine.checkpointer import Checkpoint
from sarm.engine.group import ProcessGroup
from sarm.engine.update import PLAIN, PlainUpdate, Update
from sarm.engine.zero import ZeroUpdate
from sarm.job import Resources, UsageProblem
from sarm.sae.small_moments import SmallMomentsAdam

BETAS = (0.9, 0.999)


class SmallMomentsAdamW(SmallMomentsAdam):
    """Adam with bfloat16 moments and each group's decoupled `weight_decay`. Source: Loshchilov and Hutter 2019, algorithm 2."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
        super().step()


def layout_of(resources: Resources) -> str:
    """How a checkpoint is laid out: `plain` in one process without ZeRO, else `zero-<stage>`."""
    return f"zero-{resources.zero_stage}" if resources.zero_stage or resources.processes > 1 else PLAIN


def reward_update(
    module: nn.Module,
    model: nn.Module,
    groups: Sequence[dict[str, Any]],
    *,
    config: RewardTrainingConfig,
    resources: Resources,
    group: ProcessGroup,
    dtype: torch.dtype,
    saved: Checkpoint | None,
) -> Update:
    """The update of `model`'s parameters in `groups`, each with its `peak` learning rate; `module` gives the losses.

    Raises UsageProblem for bfloat16 moments that several processes or ZeRO would have to share.
    """
    plain, offload = layout_of(resources) == PLAIN, resources.offload == "optimizer"
    if config.moments == "bfloat16" and not plain:
        raise UsageProblem(
            f"reward.moments = 'bfloat16' does not go with {resources.processes} processes and ZeRO stage {resources.zero_stage}; "
            "set it to float32, or --set resources.train_reward.processes=1 --set resources.train_reward.zero_stage=0"
        )
    if plain:
        optimizer = _adam(groups, config, fused=True)
        return PlainUpdate(module, model, optimizer, max_norm=config.max_grad_norm, kind=config.kind, offload=offload)
    return ZeroUpdate(
        module,
        model,
        # In a host the fused form is the vectorised one, and needs no memory of its own.
        _adam(groups, config, fused=offload),
        group=group,
        stage=resources.zero_stage,
        rows=config.batch_pairs,
        dtype=dtype,
        max_norm=config.max_grad_norm,
        kind=config.kind,
        saved=saved,
        full=frozenset({"score.weight"}),
        offload=offload,
    )


def _adam(groups: Sequence[dict[str, Any]], config: RewardTrainingConfig, *, fused: bool) -> torch.optim.Optimizer:
    if config.moments == "float32":
        return torch.optim.AdamW(list(groups), betas=BETAS, weight_decay=config.weight_decay, fused=fused, foreach=not fused)
    decayed: list[Any] = [{**group, "weight_decay": config.weight_decay} for group in groups]
    return SmallMomentsAdamW(decayed, lr=0.0, betas=BETAS, seed=config.seed)
