"""The processes that train one model together: who they are, what they agree on, what they exchange.

One process is the special case in which every exchange is the identity and torch.distributed is never started.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from sarm.engine.devices import device_of
from sarm.job import EnvironmentProblem, IntegrityProblem, Resources, UsageProblem

# Rank 0 alone converts and gathers checkpoints while the others wait in a collective.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class ProcessGroup:
    """One of `size` processes, `rank` 0 being the first, with the device on which it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    @property
    def _place(self) -> torch.device:
        return self.device if distributed.get_backend() == "nccl" else torch.device("cpu")

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes of several numbers."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._place)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor.cpu()]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: the same answer in all."""
        return self.totals([float(flag)])[0] > 0

    def barrier(self) -> None:
        """Wait until all processes are here."""
        # An exchange rather than torch's barrier, which guesses a device.
        self.totals([0.0])

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """The first process's value, in all."""
        return self.gathered(value if self.is_first else None)[0]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor on the group's device by its sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(tensor)

    def gathered_rows(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """The rows `[counts[rank], width]` of every process, by rank."""
        if self.size == 1:
            return [rows]
        # Bytes, since not every backend knows every precision; equally many, since all_gather wants that.
        padded = rows.new_zeros(max(counts), rows.shape[1])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather([one.view(torch.uint8) for one in found], padded.view(torch.uint8))
        return [one[:count] for one, count in zip(found, counts, strict=True)]

    def check_same(self, value: Any, what: str) -> None:
        """Raises IntegrityProblem in every process unless all have the same value (compared by its `repr`)."""
        if self.size > 1 and len(set(self.gathered(hashlib.sha256(repr(value).encode()).hexdigest()))) > 1:
            raise IntegrityProblem(f"the processes have different {what}; they must read the same files with the same code")

    def check_shares(self, batches: Sequence[Sequence[str]], mine: Sequence[Sequence[str]]) -> None:
        """Before the first step: all processes have the same batches, and their shares of each are disjoint and complete.

        `batches` are the rows of each step by name, `mine` those of this process. Raises IntegrityProblem in every process.
        """
        self.check_same([list(batch) for batch in batches], "batches")
        shares = self.gathered([list(share) for share in mine])
        for index, batch in enumerate(batches):
            rows = sorted(row for share in shares for row in share[index])
            if rows != sorted(batch):
                raise IntegrityProblem(f"step {index}: the processes' shares have {len(rows)} rows that are not the batch's {len(batch)}")


ALONE = ProcessGroup(rank=0, size=1, device=torch.device("cpu"))


def board() -> distributed.Store:
    """Keys that all processes of this start see, before they have a group. Raises EnvironmentProblem when they do not meet."""
    try:
        store, _, _ = next(distributed.rendezvous("env://"))
    except (ValueError, RuntimeError) as error:
        raise EnvironmentProblem(f"the processes do not meet ({str(error).splitlines()[0]}); start them with torchrun") from error
    return distributed.PrefixStore("jobs", store)


def join(resources: Resources) -> ProcessGroup:
    """The group of this process, started when there are several or a ZeRO stage asks for one.

    Raises UsageProblem when the number of processes is not the one asked for, so that nothing runs alone by mistake, and
    EnvironmentProblem without the GPUs asked for.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size != resources.processes:
        raise UsageProblem(
            f"resources.processes = {resources.processes}, but {size} were started (WORLD_SIZE); start them with "
            f"torchrun --nproc-per-node {resources.processes}, or set resources.processes = {size}"
        )
    if resources.gpus and resources.gpus != resources.processes:
        raise UsageProblem(f"resources.gpus = {resources.gpus}, resources.processes = {size}; each process needs one GPU: set them equal")
    device = device_of(resources)
    if size == 1 and not resources.zero_stage:
        return ProcessGroup(rank=0, size=1, device=device)
    backend = "nccl" if resources.gpus else "gloo"
    if not distributed.is_initialized():
        _start(backend, device, alone=size == 1)
    if (distributed.get_world_size(), distributed.get_rank(), distributed.get_backend()) != (size, rank, backend):
        raise EnvironmentProblem(
            f"the process group has {distributed.get_world_size()} processes over {distributed.get_backend()}, "
            f"wanted {size} over {backend}; start the job anew"
        )
    return ProcessGroup(rank=rank, size=size, device=device)


def _start(backend: str, device: torch.device, *, alone: bool) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if alone:
        # No address is needed, and none can clash.
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1, timeout=PATIENCE)
    else:
        distributed.init_process_group(backend, init_method="env://", timeout=PATIENCE)
