"""What we ask of Slurm: sbatch, squeue, sacct, scancel, scontrol. One call for all jobs; what cannot be known is unknown, not failed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sarm.job import EnvironmentProblem

SECONDS = 60
# Source: squeue(1), JOB STATE CODES. Everything else has ended.
LIVE = frozenset(
    {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "SIGNALING", "STAGE_OUT"}
) | {"STOPPED", "SUSPENDED", "SPECIAL_EXIT"}
DOOMED = "DependencyNeverSatisfied"
JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class SlurmState:
    """The state of one Slurm job or array task in Slurm's words (`UNKNOWN` where nobody knows it), its reason and the job's name."""

    state: str
    reason: str = ""
    name: str = ""

    @property
    def live(self) -> bool:
        """Whether it waits or runs, and can come to an end."""
        return self.state in LIVE and not self.doomed

    @property
    def doomed(self) -> bool:
        """Whether it waits for a job that failed."""
        return self.state in LIVE and self.reason == DOOMED


class Queue(Protocol):
    """Where scripts go."""

    def submit(self, script: Path, *, options: Sequence[str]) -> str:
        """Submit a script with further sbatch options; gives the job's id."""

    def states(self, ids: Collection[str]) -> Mapping[str, SlurmState]:
        """The state of each id; array tasks are `<array>_<index>`."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs and array tasks."""


@dataclass(frozen=True)
class Slurm:
    """The cluster of this host, through its commands."""

    def submit(self, script: Path, *, options: Sequence[str]) -> str:
        """See Queue. Raises EnvironmentProblem with sbatch's own words."""
        text = call(["sbatch", "--parsable", *options, str(script)])
        # `id;cluster` where there are several clusters.
        number = text.strip().splitlines()[-1].partition(";")[0] if text.strip() else ""
        if not JOB_ID.fullmatch(number):
            raise EnvironmentProblem(f"sbatch {script.name}: no job id in its answer {text.strip()!r}")
        return number

    def states(self, ids: Collection[str]) -> Mapping[str, SlurmState]:
        """See Queue. Raises EnvironmentProblem when squeue fails: a live job must never be taken for a lost one."""
        # All jobs of ours, not --jobs: squeue fails for an id that it has forgotten.
        listed = call(["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%j"])
        found = {job: SlurmState(state, reason, name) for job, state, reason, name in _fields(listed, 4)}
        forgotten = [one for one in ids if one not in found]
        found.update(self._accounted(forgotten))
        return {one: found.get(one, SlurmState("UNKNOWN")) for one in ids}

    def _accounted(self, ids: Sequence[str]) -> Mapping[str, SlurmState]:
        if not ids:
            return {}
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,JobName", f"--jobs={','.join(ids)}"]
        try:
            listed = call(command)
        except EnvironmentProblem:
            # Many clusters keep no accounts; an empty answer means as little.
            return {}
        # "CANCELLED by 1000" is one state.
        return {job: SlurmState(state.split(" ")[0], name=name) for job, state, name in _fields(listed, 3)}

    def cancel(self, ids: Sequence[str]) -> None:
        """See Queue. Raises EnvironmentProblem with scancel's own words."""
        if ids:
            call(["scancel", *ids])


def configuration() -> dict[str, str]:
    """`scontrol show config` as names and values. Raises EnvironmentProblem."""
    pairs = (line.partition("=") for line in call(["scontrol", "show", "config"]).splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def partitions() -> list[tuple[str, str, str]]:
    """(name, GPUs, longest time) of each partition and kind of node, as `sinfo` gives them. Raises EnvironmentProblem."""
    return [(name, gpus, limit) for name, gpus, limit in _fields(call(["sinfo", "--noheader", "--format=%P|%G|%l"]), 3)]


def call(command: Sequence[str]) -> str:
    """What a command says on stdout. Raises EnvironmentProblem when it is missing, slow or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"{command[0]} is not here; use --launcher slurm on a login node of the cluster") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"{command[0]} does not answer ({type(error).__name__}); try again later") from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise EnvironmentProblem(f"{command[0]} failed: {' '.join(said.splitlines()[:3])}")
    return done.stdout


def _fields(text: str, number: int) -> list[list[str]]:
    rows = (line.split("|") for line in text.splitlines())
    return [[part.strip() for part in row] for row in rows if len(row) == number]


