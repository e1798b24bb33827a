"""A way of training in a process of its own: it does steps when asked to and tells how long they took and what they lost.

Needs torch and the standard library alone, so that it also runs in the environment of another library.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from interleaved import Trial, measure, peak_from_now, status
from torch import Tensor

Step = Callable[[Tensor], Tensor]


class Problem(NamedTuple):
    """What every way starts from: `batches` `[count, batch, hidden_size]`, initial weights by name, sizes and settings."""

    batches: Tensor
    weights: dict[str, Tensor]
    k: int
    learning_rate: float
    unit_norm_every: int


class Answer(NamedTuple):
    """Losses of the steps asked for, seconds on the wall and of the processor, and bytes above what importing and the data took."""

    losses: list[float]
    seconds: float
    processor_seconds: float
    peak_growth: int | None


def save_problem(problem: Problem, path: Path) -> None:
    """Write it for the workers."""
    torch.save(problem._asdict(), path)


def serve(start: Callable[[Problem], Step]) -> None:
    """The life of a worker on an SAE problem: arguments `FILE THREADS DESCRIPTOR`, then steps as they are asked for."""
    torch.set_num_threads(int(sys.argv[2]))
    problem = Problem(**torch.load(sys.argv[1], weights_only=True))
    requests = Requests()
    step, done = start(problem), 0
    while steps := requests.next():
        requests.answer([float(step(problem.batches[(done + index) % len(problem.batches)])) for index in range(steps)])
        done += steps


class Requests:
    """The worker's end of the line: JSON lines `{"steps": n}` on standard input; memory is counted from when this is made.

    Answers go to the open file that the worker's last argument numbers, since libraries print on standard output.
    """

    def __init__(self) -> None:
        # The first optimizer of a process makes torch import its compiler: importing, too.
        torch.optim.Adam([torch.zeros(1)])
        self._resting = peak_from_now()
        self._answers = os.fdopen(int(sys.argv[-1]), "w")
        self._started = (0.0, 0.0)

    def next(self) -> int:
        """How many steps are asked for, once they are; 0 when no more will be. The clock starts."""
        line = sys.stdin.readline()
        self._started = (time.perf_counter(), time.process_time())
        return int(json.loads(line)["steps"]) if line else 0

    def answer(self, losses: list[float]) -> None:
        """Tell the losses of the steps, their time, and the largest memory so far."""
        seconds, processor_seconds = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        peak = status("VmHWM")
        growth = None if peak is None or self._resting is None else peak - self._resting
        print(json.dumps(Answer(losses, seconds, processor_seconds, growth)), file=self._answers, flush=True)


class Worker:
    """The other end: a process that waits for requests. Use as a context; it ends with it."""

    def __init__(self, command: list[str], problem: Path, *, threads: int, environment: Mapping[str, str]) -> None:
        answers, theirs = os.pipe()
        arguments = [*command, str(problem), str(threads), str(theirs)]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, env=dict(environment), pass_fds=[theirs]
        )
        os.close(theirs)
        self._answers = os.fdopen(answers)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *problem: Any) -> None:
        assert self._process.stdin is not None
        # It has nothing to put away, and twenty orderly ends of torch take a while.
        self._process.kill()
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._answers.close()

    def run(self, steps: int) -> Answer:
        """Do so many steps more. Raises RuntimeError where the worker has died; its last words are on standard error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"steps": steps}) + "\n")
            self._process.stdin.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(f"worker {self._process.args!r} ended with code {self._process.wait()}; what it said is above")
        return Answer(*json.loads(answer))


def by_turns(
    workers: Mapping[str, Worker], *, steps: int, repeats: int
) -> tuple[dict[str, list[Trial]], dict[str, list[float]]]:
    """The trials of all workers, measured in rounds of so many steps, and the losses of each."""
    losses: dict[str, list[float]] = {name: [] for name in workers}
    ways = {name: _way_of(worker, steps, losses[name]) for name, worker in workers.items()}
    return measure(ways, repeats=repeats), losses


def _way_of(worker: Worker, steps: int, losses: list[float]) -> Callable[[], Trial]:
    """Some steps of a worker as a trial; its losses are added to the list."""

    def run() -> Trial:
        answer = worker.run(steps)
        losses.extend(answer.losses)
        return Trial(answer.seconds, answer.processor_seconds, answer.peak_growth)

    return run
