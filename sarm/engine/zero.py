"""One optimizer step of a model shared by several processes: DeepSpeed's ZeRO stages 0 to 3.

The only file that may name DeepSpeed. It is imported by the first job that needs it, not before.
"""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sarm.engine.checkpointer import Checkpoint
from sarm.engine.group import ProcessGroup
from sarm.engine.update import refuse_layout
from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem

SHARDS = "shards"
UNIVERSAL = "universal"


def zero_config(
    *, stage: int, rows: int, processes: int, dtype: torch.dtype, max_norm: float, universal: bool, offload: bool = False
) -> dict[str, Any]:
    """DeepSpeed's configuration for a global batch of `rows`.

    No `optimizer` section: torch's AdamW needs no compiler. `universal` reads a checkpoint of another number of processes; `offload`
    keeps float32 copies, moments and float32 gradients in the host's memory and computes the step there.
    Raises UsageProblem for a batch that does not divide, for float16, whose loss scaling skips steps, and for `offload` without ZeRO.
    """
    if rows % processes:
        raise UsageProblem(f"a batch of {rows} rows is not a multiple of {processes} processes; choose sizes that divide")
    if dtype == torch.float16:
        raise UsageProblem("float16 is not trained with DeepSpeed here, since its loss scaling skips steps; set dtype = 'bfloat16'")
    if offload and not stage:
        raise UsageProblem("DeepSpeed keeps an optimizer in host memory with ZeRO stages 1 to 3 alone; set zero_stage, or offload = 'none'")
    zero: dict[str, Any] = {"stage": stage}
    if offload:
        # Not pinned: torch rounds pinned blocks up to a power of two, which can double what the host has to have.
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if stage:
        zero |= {"contiguous_gradients": True, "overlap_comm": True, "allgather_bucket_size": 500_000_000}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_batch_size": rows,
        "train_micro_batch_size_per_gpu": rows // processes,
        "gradient_accumulation_steps": 1,
        # Stage 0 in float32 clips in our own code, which DeepSpeed would do without telling the norm.
        "gradient_clipping": 0.0 if clips_itself(stage, dtype) else max_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Its own Adam for hosts is compiled at the start (93 s); torch's fused one is not.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "checkpoint": {"load_universal": universal},
        "wall_clock_breakdown": False,
        "steps_per_print": 1_000_000_000,
    }


def clips_itself(stage: int, dtype: torch.dtype) -> bool:
    """Whether gradients are clipped by us and not by DeepSpeed."""
    return stage == 0 and dtype == torch.float32


def _deepspeed(device: torch.device) -> Any:
    """DeepSpeed, set up for the device. Raises EnvironmentProblem where it is not installed."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        import deepspeed  # noqa: PLC0415 - takes seconds, and most jobs do not need it
        import deepspeed.ops  # noqa: PLC0415
    except ImportError as error:
        raise EnvironmentProblem(f"ZeRO needs DeepSpeed, which cannot be imported ({error}); see: replicate doctor") from error
    if device.type == "cpu":
        # Its own shared-memory collectives would be compiled at the start, with no way back to gloo where that fails. A private
        # name: seen in 0.19.8, where a table that lacks an operation means that it is not to be built.
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return deepspeed


class ZeroUpdate:
    """A DeepSpeed engine around the module; each process works on its share of every batch of `rows`.

    `full` names parameters whose float32 copy is what `weights` gives, where the module computes in low precision.
    """

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        group: ProcessGroup,
        stage: int,
        rows: int,
        dtype: torch.dtype,
        max_norm: float,
        kind: str,
        saved: Checkpoint | None,
        full: frozenset[str] = frozenset(),
        offload: bool = False,
    ) -> None:
        self.layout = f"zero-{stage}"
        self._model, self._group, self._stage, self._kind, self._full = model, group, stage, kind, full
        self._max_norm = max_norm if clips_itself(stage, dtype) else 0.0
        if saved is not None:
            refuse_layout(saved, self.layout, kind=kind)
        # Without ZeRO every process has all of the state, whatever their number.
        self._universal = saved is not None and saved.processes != group.size and stage > 0
        config = zero_config(
            stage=stage,
            rows=rows,
            processes=group.size,
            dtype=dtype,
            max_norm=max_norm,
            universal=self._universal,
            offload=offload,
        )
        self._deepspeed = _deepspeed(group.device)
        self._engine, *_ = self._deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
        self._check(rows)

    def _check(self, rows: int) -> None:
        """What DeepSpeed made of the configuration. Raises IntegrityProblem, before the first step."""
        found = {
            "processes": self._engine.dp_world_size,
            "global batch": self._engine.train_batch_size(),
            "ZeRO stage": int(self._engine.zero_optimization_stage()),
        }
        wanted = {"processes": self._group.size, "global batch": rows, "ZeRO stage": self._stage}
        if found != wanted:
            raise IntegrityProblem(f"DeepSpeed runs with {found}, wanted {wanted}; nothing was trained")

    def begin(self, multiplier: float) -> None:
        """See Update."""
        for one in self._engine.optimizer.param_groups:
            one["lr"] = one["peak"] * multiplier

    def forward(self, *inputs: Any) -> Any:
        """See Update."""
        return self._engine(*inputs)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """See Update."""
        self._engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed takes the mean over processes of what is to be a sum.
        self._engine.backward(loss * self._group.size, scale_wrt_gas=False)

    def step(self) -> float:
        """See Update."""
        norm = 0.0
        if self._max_norm:
            trained = [p for p in self._model.parameters() if p.requires_grad]
            norm = float(torch.nn.utils.clip_grad_norm_(trained, self._max_norm))
            if not math.isfinite(norm):
                self._model.zero_grad(set_to_none=True)
                return norm
        self._engine.step()
        if not self._engine.was_step_applied():
            return math.inf
        return norm if self._max_norm else float(self._engine.get_global_grad_norm() or 0.0)

    def weights(self) -> dict[str, Tensor]:
        """See Update."""
        whole: dict[str, Tensor] = {}
        parameters = dict(self._model.named_parameters())
        for name, value in self._model.state_dict().items():
            parameter = parameters.get(name)
            found = value if parameter is None else self._whole(name, parameter)
            if self._group.is_first and found is not None:
                whole[name] = found.detach().cpu().clone()
        return whole

    def _whole(self, name: str, parameter: nn.Parameter) -> Tensor | None:
        if name in self._full and parameter.requires_grad and parameter.dtype != torch.float32:
            from deepspeed.utils import safe_get_full_fp32_param  # noqa: PLC0415

            full: Tensor | None = safe_get_full_fp32_param(parameter)
            # Stage 0 keeps its float32 copies where they cannot be asked for.
            return parameter if full is None else full
        if self._stage < 3:
            return parameter
        with self._deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone() if self._group.is_first else None

    def replace(self, parameter: nn.Parameter, change: Callable[[Tensor], Tensor]) -> None:
        """Set a trained parameter to a function of its whole float32 value, between two steps. All must call it."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param  # noqa: PLC0415

        if not self._stage:
            parameter.data.copy_(change(parameter.data.float()))
            return
        changed = change(safe_get_full_fp32_param(parameter))
        safe_set_full_fp32_param(parameter, changed)
        if self._stage < 3:
            parameter.data.copy_(changed)
            return
        # What the module computes with is a copy of its own until the next step.
        with self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self._group.is_first:
                parameter.data.copy_(changed)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: the shards have all."""
        return {}

    def save_shards(self, folder: str) -> None:
        """See Update."""
        self._engine.save_checkpoint(folder, tag=SHARDS, save_latest=False)

    def restore(self, saved: Checkpoint) -> None:
        """See Update."""
        tag = SHARDS
        if self._universal:
            tag = UNIVERSAL
            self._convert(saved)
        groups = self._engine.optimizer.param_groups
        configured = [{name: value for name, value in one.items() if name != "params"} for one in groups]
        path, _ = self._engine.load_checkpoint(str(saved.folder), tag=tag)
        if path is None:
            raise IntegrityProblem(f"the checkpoint of step {saved.step} cannot be read by DeepSpeed; begin anew with --fresh")
        # A universal checkpoint of stage 3 gives every group the first one's values and all of them one counter of steps, which
        # each then advances (seen in DeepSpeed 0.19.8).
        for one, values in zip(self._engine.optimizer.param_groups, configured, strict=True):
            one.update(values)
        for state in self._engine.basic_optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()

    def close(self) -> None:
        """See Update. An engine's hooks keep it alive, and the next job of this process needs its memory."""
        self._engine.destroy()
        del self._engine
        gc.collect()
        if self._group.device.type == "cuda":
            torch.cuda.empty_cache()

    def _convert(self, saved: Checkpoint) -> None:
        """The first process rewrites a checkpoint for any number of processes. Raises UsageProblem in all where that fails."""
        problem = ""
        if self._group.is_first:
            problem = to_universal(saved.folder)
        problem = self._group.from_first(problem)
        if problem:
            raise UsageProblem(
                f"the checkpoint of step {saved.step} is of {saved.processes} processes and cannot be converted ({problem}); "
                f"continue it with --set resources.{self._kind}.processes={saved.processes}"
            )


def to_universal(folder: Path) -> str:
    """Write `folder/universal` from `folder/shards`. Gives what went wrong, empty for nothing."""
    target = folder / UNIVERSAL
    if target.exists():
        return ""
    # In a process of its own: it needs none of this one's group. One worker, as it would start many.
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", str(folder / SHARDS)]
    command += ["--output_folder", str(target.with_suffix(".partial")), "--inject_missing_state"]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    target.with_suffix(".partial").rename(target)
    return ""
