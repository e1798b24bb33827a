"""Job kinds for tests of the machinery: they count, they sleep, they fail; no torch."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from sarm.job import Interrupted, JobConfig, JobContext, UsageProblem
from sarm.jobs.process.registry import Registry

# Texts of torch 2.11 on a GPU.
CARD_IS_FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.55 GiB of which 1.21 GiB is free. "
    "Process 4711 has 22.30 GiB memory in use. Of the allocated memory 19.80 GiB is allocated by PyTorch, and 2.10 GiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True"
)
CUDA_ADVICE = "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect."


class CountConfig(JobConfig):
    kind: ClassVar[str] = "count"
    version: ClassVar[int] = 1

    steps: int = 3
    seed: int = 0
    trouble: Literal["none", "usage", "crash", "memory", "disk", "link", "print", "card is full", "card is busy"] = "none"


class SumConfig(JobConfig):
    kind: ClassVar[str] = "sum"
    version: ClassVar[int] = 1

    factor: int = 1


class PieceConfig(JobConfig):
    kind: ClassVar[str] = "piece"
    version: ClassVar[int] = 1

    layer: int
    seed: int = 0


class MeetConfig(JobConfig):
    kind: ClassVar[str] = "meet"
    version: ClassVar[int] = 1
    data_parallel: ClassVar[bool] = True

    steps: int = 3
    # Which process fails or dies, and how; -1 for none.
    failing: int = -1
    trouble: Literal["usage", "crash", "die"] = "usage"


def _trouble(config: CountConfig, context: JobContext) -> None:
    if config.trouble == "usage":
        raise UsageProblem("steps do not divide; choose others")
    if config.trouble == "crash":
        raise ValueError("first line\nsecond line")
    if config.trouble == "memory":
        raise MemoryError
    if config.trouble == "card is full":
        from torch import OutOfMemoryError

        raise OutOfMemoryError(CARD_IS_FULL)
    if config.trouble == "card is busy":
        raise RuntimeError(f"CUDA error: CUDA-capable device(s) is/are busy or unavailable\n{CUDA_ADVICE}")
    if config.trouble == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if config.trouble == "link":
        (context.output / "link").symlink_to("/etc/hostname")
    if config.trouble == "print":
        print("a library says hello")
        os.write(1, b"native code says hello\n")


def lost_card() -> Exception:
    """What torch raises when a card falls off the bus: a class of its own from 2.8 on."""
    import torch

    return getattr(torch, "AcceleratorError", RuntimeError)(f"CUDA error: unspecified launch failure\n{CUDA_ADVICE}")


def count(config: CountConfig, context: JobContext) -> None:
    """A chain of numbers, one each step, with a checkpoint after each; MAKE_BELIEVE_SECONDS slows a step down."""
    _trouble(config, context)
    pause = float(os.environ.get("MAKE_BELIEVE_SECONDS", "0"))
    saved = context.checkpoint / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "chain": [config.seed]}
    context.log(f"starts at step {state['step']}")
    for step in range(state["step"], config.steps):
        time.sleep(pause)
        state = {"step": step + 1, "chain": [*state["chain"], (state["chain"][-1] * 31 + step) % 1009]}
        partial = saved.with_suffix(".partial")
        partial.write_text(json.dumps(state))
        partial.replace(saved)
        context.progress(step + 1, config.steps, "steps", "")
        if os.environ.get("MAKE_BELIEVE_CARD_IS_LOST") == str(step + 1):
            raise lost_card()
        if context.stop_requested():
            raise Interrupted(f"stopped at step {step + 1} with a checkpoint; the same command continues")
    (context.output / "deep").mkdir(exist_ok=True)
    (context.output / "deep" / "chain.json").write_text(json.dumps(state["chain"]))
    (context.output / "metrics.jsonl").write_text("".join(json.dumps({"step": i, "value": v}) + "\n" for i, v in enumerate(state["chain"])))
    with open(os.environ.get("MAKE_BELIEVE_LEDGER", os.devnull), "a") as ledger:
        ledger.write(f"count {os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")


def add(config: SumConfig, context: JobContext) -> None:
    """The sum over all inputs."""
    chains = [json.loads((folder / "deep" / "chain.json").read_text()) for folder in context.inputs.values()]
    (context.output / "sum.json").write_text(json.dumps(config.factor * sum(map(sum, chains))))


def piece(config: PieceConfig, context: JobContext) -> None:
    """One piece alone."""
    (context.output / "piece.json").write_text(json.dumps([config.layer, 1]))


def pieces(work: Sequence[tuple[PieceConfig, JobContext]]) -> None:
    """Several pieces in one pass; each says how many there were."""
    for config, context in work:
        (context.output / "piece.json").write_text(json.dumps([config.layer, len(work)]))


def meet(config: MeetConfig, context: JobContext) -> None:
    """The processes of a group add their ranks, with a checkpoint after each step, and stop when one of them is asked to."""
    from sarm.engine.checkpointer import Checkpointer
    from sarm.engine.group import join

    group = join(context.resources)
    checkpoints = Checkpointer(context, group=group)
    saved = checkpoints.latest()
    total = 0.0 if saved is None else saved.facts["total"]
    for step in range(0 if saved is None else saved.step, config.steps):
        if config.failing == group.rank and step:
            if config.trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"usage": UsageProblem, "crash": ValueError}[config.trouble]("this one does not fit")
        total += group.totals([group.rank + 1.0])[0]
        time.sleep(float(os.environ.get("MAKE_BELIEVE_SECONDS", "0")))
        context.progress(step + 1, config.steps, "steps", "")
        checkpoints.save_if_due(step + 1, {}, {"total": total})
    if group.is_first:
        (context.output / "total.json").write_text(json.dumps({"total": total, "processes": group.size}))


MAKE_BELIEVE = Registry(
    jobs={
        "count": (CountConfig, "make_believe_jobs:count"),
        "sum": (SumConfig, "make_believe_jobs:add"),
        "meet": (MeetConfig, "make_believe_jobs:meet"),
        "piece": (PieceConfig, "make_believe_jobs:piece"),
    },
    fused={"piece": "make_believe_jobs:pieces"},
)
