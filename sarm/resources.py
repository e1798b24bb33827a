"""Where and how fast a job runs; never what it computes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """Hardware and batching of one job. Not hashed: changing it must not change a number (but for rounding)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(default=1, ge=1, description="Machines.")
    processes: int = Field(default=1, ge=1, description="Processes (one per GPU, or CPU ranks) over all nodes.")
    gpus: int = Field(default=0, ge=0, description="GPUs over all nodes; 0 runs on the CPU.")
    threads: int = Field(default=0, ge=0, description="Torch threads per process; 0 takes what the machine has.")
    micro_batch_tokens: int = Field(default=8192, ge=1, description="Padded tokens in one forward/backward pass of training.")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage.")
    offload: Literal["none", "optimizer"] = Field(
        default="none", description="What training keeps in the host's memory: nothing, or Adam's moments and float32 copies."
    )
    activation_checkpointing: bool = Field(default=False, description="Recompute block activations in the backward pass.")
    hours: float = Field(default=24.0, gt=0, description="Wall-clock limit asked of a scheduler, hours.")
    memory_gb: float = Field(default=4.0, gt=0, description="Host memory asked of a scheduler, GB, beside what `offload` keeps there.")
    offload_gb: float = Field(default=0.0, ge=0, description="Host memory that `offload` takes, GB; a plan fills it in.")
    checkpoint_minutes: float = Field(default=15.0, gt=0, description="Longest time between two checkpoints, minutes.")
