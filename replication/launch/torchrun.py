"""Several processes of one job on this machine, started by torchrun; it hides exit codes, so the state file tells the outcome."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sarm.job import Job


@dataclass(frozen=True)
class Segment:
    """Jobs that follow each other in a plan and run in equally many processes."""

    processes: int
    jobs: tuple[Job, ...]


def segments(plan: Sequence[Job]) -> list[Segment]:
    """The plan in its order, cut where the number of processes changes."""
    found: list[Segment] = []
    for job in plan:
        if found and found[-1].processes == job.resources.processes:
            found[-1] = Segment(found[-1].processes, (*found[-1].jobs, job))
        else:
            found.append(Segment(job.resources.processes, (job,)))
    return found


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(processes: int) -> list[str]:
    """The words before the arguments of `sarm.jobs`."""
    options = ["--nnodes=1", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, "--max-restarts=0", "-m", "sarm.jobs"]


class Fallen(NamedTuple):
    """A process of a group that a signal ended, and not torchrun's own."""

    rank: int
    signal: int


# An entry of torchrun's report of failures: "rank      : 1 (local_rank: 1)" and, below it, "exitcode  : -9 (pid: 4711)".
FAILURE = re.compile(r"^\s*rank\s*: (\d+) .*\n\s*exitcode\s*: (-\d+) ", re.MULTILINE)
# With these torchrun ends the others of a group once one is gone, and a user the whole group.
OF_TORCHRUN = (signal.SIGTERM, signal.SIGINT)


def fallen(said: str) -> Fallen | None:
    """The process that a signal ended, after what torchrun said on its stderr; None where none was, or it did not say."""
    found = [Fallen(int(rank), -int(code)) for rank, code in FAILURE.findall(said)]
    return next((one for one in found if one.signal not in OF_TORCHRUN), None)


@dataclass(frozen=True)
class Talk:
    """How a launcher asks a group to stop and learns what became of it, through files in a folder of its own."""

    folder: Path

    @property
    def _stop(self) -> Path:
        return self.folder / "stop"

    @property
    def _state(self) -> Path:
        return Path(os.environ.get("SARM_STATE_FILE") or self.folder / "state.json")

    def environment(self) -> Mapping[str, str]:
        """What the processes must know."""
        files = [os.environ.get("SARM_STOP_FILE", ""), str(self._stop)]
        return {"SARM_STOP_FILE": os.pathsep.join(filter(None, files)), "SARM_STATE_FILE": str(self._state)}

    def asker(self, child: subprocess.Popen[str]) -> Callable[[int], None]:
        """What to do with a signal: the first asks for a checkpoint, a second SIGINT ends the group.

        Not forwarded at once: torchrun gives its processes 30 s from then on, and a large checkpoint takes longer.
        """

        def ask(number: int) -> None:
            if number == signal.SIGINT and self._stop.exists():
                child.send_signal(signal.SIGINT)
            self._stop.touch()

        return ask

    def code(self, torchruns: int) -> int:
        """The exit code of the group: what the first process told, or torchrun's own where it could not tell."""
        try:
            told = json.loads(self._state.read_text(encoding="utf-8"))
            state, code = told["state"], int(told["code"] or 0)
        except (OSError, ValueError, KeyError, TypeError):
            return torchruns
        if state == "running" or (torchruns and not code):
            return torchruns or 1
        return code
