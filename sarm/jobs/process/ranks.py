"""A job in several processes: the first one claims, tells and commits; the others run the same function beside it.

They speak through a board of keys that all can read, which needs no collective: who waits for hours blocks nobody.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from sarm.job import JobConfig, JobContext, JobError, JobRequest
from sarm.jobs.process.device_errors import DeviceLost, device_problem
from sarm.jobs.process.registry import Registry

POLL_SECONDS = 0.2
# After one process failed the others fail too, or hang in an exchange with it. Well below the 30 s that torchrun leaves to those
# who remain.
FAILURE_SECONDS = 8.0
# After the first process is done the others only have to return.
FAREWELL_SECONDS = 600.0


class Board(Protocol):
    """Keys and texts that all processes see (a store of torch.distributed)."""

    def set(self, key: str, value: str) -> None:
        """Write a key."""

    def get(self, key: str) -> bytes:
        """The text of a key that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there."""


class GroupBroken(JobError):
    """A process of the group died or hangs: this process can run nothing more with it."""


def rank_and_size() -> tuple[int, int]:
    """(rank, number of processes) as torchrun or srun told; (0, 1) for a process on its own."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_for(board: Board, keys: Sequence[str], seconds: float) -> bool:
    """Whether the keys are there within so many seconds."""
    end = time.monotonic() + seconds
    while not board.check(list(keys)):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def run_work(registry: Registry, work: Sequence[tuple[JobConfig, JobContext]]) -> None:
    """Call the function of a kind, or that for several jobs at once."""
    kind = work[0][0].kind
    if len(work) > 1:
        registry.fused_function_of(kind)(work)
    else:
        registry.function_of(kind)(*work[0])


@dataclass
class Leader:
    """The first of `size` processes."""

    board: Board
    size: int
    broken: bool = field(default=False, init=False)
    _number: int = field(default=0, init=False)

    def together(self, work: Sequence[tuple[JobRequest, JobContext]], call: Callable[[], None]) -> None:
        """Run `call` here while the others run the same work.

        Raises what was raised here, or what another process raised first, or GroupBroken where one does not come back.
        """
        number, self._number = self._number, self._number + 1
        self.board.set(f"order/{number}", json.dumps([_order(request, context) for request, context in work]))
        problem: Exception | None = None
        try:
            call()
        except Exception as error:
            problem = error
        self.board.set(f"over/{number}/0", "")
        over = wait_for(
            self.board, [f"over/{number}/{rank}" for rank in range(1, self.size)], FAREWELL_SECONDS if problem is None else FAILURE_SECONDS
        )
        self.broken = not over
        if isinstance(problem, JobError):
            raise problem
        told = next((rank for rank in range(1, self.size) if self.board.check([f"trouble/{number}/{rank}"])), 0)
        if told:
            raise self._trouble(number, told) from problem
        if not over and (problem is None or _is_of_an_exchange(problem)):
            raise GroupBroken(self._lost(number, problem)) from problem
        if problem is not None:
            raise problem

    def _trouble(self, number: int, rank: int) -> JobError:
        told = json.loads(self.board.get(f"trouble/{number}/{rank}"))
        found = JobError(f"process {rank}: {told['message']}")
        found.exit_code = told["code"]
        # It answers, but can compute nothing more.
        self.broken = self.broken or told["lost"]
        return found

    def _lost(self, number: int, problem: Exception | None) -> str:
        missing = [rank for rank in range(1, self.size) if not self.board.check([f"over/{number}/{rank}"])]
        why = f" ({type(problem).__name__}: {first_line(problem)})" if problem else ""
        return f"process {missing[0]} of {self.size} died or hangs{why}; the same command continues from the last checkpoint"

    def dismiss(self) -> None:
        """There is nothing more to do: the others end."""
        self.board.set(f"order/{self._number}", "null")
        # Where this process serves the board, it must not go before the others have read it.
        if not self.broken:
            wait_for(self.board, [f"left/{rank}" for rank in range(1, self.size)], FAILURE_SECONDS)


def _is_of_an_exchange(problem: Exception) -> bool:
    """Whether an error came out of an exchange with other processes; by name and text, since torch may not be imported here."""
    return type(problem).__name__.startswith("Dist") or any(word in str(problem).lower() for word in ("gloo", "nccl", "connection"))


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def _order(request: JobRequest, context: JobContext) -> dict[str, Any]:
    return {
        "request": request.model_dump(mode="json"),
        "inputs": {name: str(folder) for name, folder in context.inputs.items()},
        "output": str(context.output),
        "checkpoint": str(context.checkpoint),
    }


def _told(error: Exception) -> dict[str, Any]:
    """What the first process is told of an error: the line for the user, the exit code, and whether the GPU is gone."""
    known = error if isinstance(error, JobError) else device_problem(error)
    lost = isinstance(known, DeviceLost)
    text = f"{type(error).__name__}: {first_line(error)}" if known is None else str(known)
    text += "; the same command continues from the last checkpoint" if lost else ""
    return {"message": text, "code": 1 if known is None else known.exit_code, "lost": lost}


@dataclass(frozen=True)
class Follower:
    """A process that is not the first: it runs what the first one orders, and writes nothing but its shards."""

    board: Board
    rank: int
    registry: Registry
    stop_requested: Callable[[], bool]
    stderr: TextIO

    def run(self) -> int:
        """Follow orders until there are none. Gives the exit code; it is 0 when the first process tells the outcome."""
        number = 0
        while True:
            while not wait_for(self.board, [f"order/{number}"], FAREWELL_SECONDS):
                continue
            orders = json.loads(self.board.get(f"order/{number}"))
            if orders is None:
                self.board.set(f"left/{self.rank}", "")
                return 0
            code = self._do(number, orders)
            if code:
                return code
            number += 1

    def _do(self, number: int, orders: Sequence[dict[str, Any]]) -> int:
        problem: Exception | None = None
        try:
            run_work(self.registry, [self._work(order) for order in orders])
        except Exception as error:
            problem = error
            self.stderr.write(traceback.format_exc())
            self.board.set(f"trouble/{number}/{self.rank}", json.dumps(_told(error)))
        self.board.set(f"over/{number}/{self.rank}", "")
        if problem is None or wait_for(self.board, [f"over/{number}/0"], FAILURE_SECONDS):
            return 0
        # The first process waits for us in an exchange: only our end tells it.
        return problem.exit_code if isinstance(problem, JobError) else 1

    def _work(self, order: dict[str, Any]) -> tuple[JobConfig, JobContext]:
        request = JobRequest.model_validate(order["request"])
        context = JobContext(
            inputs={name: Path(folder) for name, folder in order["inputs"].items()},
            output=Path(order["output"]),
            checkpoint=Path(order["checkpoint"]),
            resources=request.resources,
            locations={name: Path(folder) for name, folder in request.locations.items()},
            progress=lambda done, total, unit, note: None,
            stop_requested=self.stop_requested,
            log=lambda line: None,
        )
        return self.registry.config_of(request), context
