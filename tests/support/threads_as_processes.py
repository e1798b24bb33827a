"""A group of processes played by threads of one: the same exchanges, so that what each does when can be decided by a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from sarm.engine.group import ProcessGroup
from sarm.job import JobError


@dataclass
class Meeting:
    """Where the threads leave their values for each other."""

    size: int
    barrier: threading.Barrier = field(init=False)
    values: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)
        self.values = [None] * self.size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


@dataclass(frozen=True)
class ThreadGroup(ProcessGroup):
    """As ProcessGroup over gloo, among threads."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def totals(self, values: Any) -> list[float]:
        return [sum(column) for column in zip(*self.meeting.exchange(self.rank, list(values)), strict=True)]

    def gathered(self, value: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, value)


def together(size: int, work: Callable[[ProcessGroup], Any]) -> list[Any]:
    """What `work` gives, or the JobError that it raised, in each of `size` threads. Raises the first other exception of a thread."""
    meeting, found = Meeting(size), [None] * size
    broken: list[Exception] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadGroup(rank=rank, size=size, device=torch.device("cpu"), meeting=meeting))
        except JobError as error:
            # Told to all of them in one exchange, as Interrupted is.
            found[rank] = error
        except Exception as error:
            # Raised again in the thread of the test, which alone can fail it.
            broken.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return found
