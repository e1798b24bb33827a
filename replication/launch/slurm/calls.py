"""What we ask of Slurm: sbatch, squeue, sacct, scancel, scontrol. One call for all jobs; what cannot be known is unknown, not failed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from replication.launch.slurm.environment import for_slurm
from sarm.job import EnvironmentProblem

SECONDS = 60
# Source: squeue(1), JOB STATE CODES. A state that is not known is alive until Slurm says otherwise: a job must not run twice.
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "LAUNCH_FAILED"})
UNKNOWN = "UNKNOWN"
DOOMED = "DependencyNeverSatisfied"
# Reasons for which a job waits until somebody releases it; those of several words are Slurm's own text.
HELD = re.compile(r"JobHeld(User|Admin)|held|requeued in held state", re.IGNORECASE)
# What `sbatch --parsable` says: the id, and after a semicolon the cluster where there are several; a wrapper may leave the option out.
# Sites print other lines beside it.
PARSABLE = re.compile(r"(?:Submitted batch job )?(\d+)(;[\w.-]+| on cluster [\w.-]+)?")


@dataclass(frozen=True)
class SlurmState:
    """The state of one Slurm job or array task in Slurm's words (`UNKNOWN` where nobody knows it), its reason and the job's name."""

    state: str
    reason: str = ""
    name: str = ""

    @property
    def live(self) -> bool:
        """Whether it waits or runs, and can come to an end."""
        return self.state not in ENDED | {UNKNOWN} and not self.doomed

    @property
    def doomed(self) -> bool:
        """Whether it waits for a job that failed."""
        return self.state not in ENDED | {UNKNOWN} and self.reason == DOOMED

    @property
    def held(self) -> bool:
        """Whether it waits until somebody releases it: no time ends that."""
        return self.live and bool(HELD.search(self.reason) or self.state in ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"))


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
        answers = [found for line in text.splitlines() if (found := PARSABLE.fullmatch(line.strip()))]
        numbers = [found[1] for found in answers if found[2]] or [found[1] for found in answers]
        if len(set(numbers)) > 1:
            # A site's own line is a bare number too: ours is the one that Slurm knows by the script's name.
            states = self.states(numbers)
            numbers = [number for number in numbers if states[number].name == script.name.removesuffix(".sh")]
        if len(set(numbers)) != 1:
            raise EnvironmentProblem(
                f"sbatch {script.name}: cannot tell the job's id from its answer {text.strip()!r}; it may have been submitted: see squeue"
            )
        return numbers[0]

    def states(self, ids: Collection[str]) -> Mapping[str, SlurmState]:
        """See Queue. Raises EnvironmentProblem when squeue fails: a live job must never be taken for a lost one."""
        # All jobs of ours, not --jobs: squeue fails for an id that it has forgotten.
        listed = call(["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%j"])
        found = {job: SlurmState(state, reason, name) for job, state, reason, name in _fields(listed, 4)}
        forgotten = [one for one in ids if one not in found]
        found.update(self._accounted(forgotten))
        return {one: found.get(one, SlurmState(UNKNOWN)) for one in ids}

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
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=for_slurm(os.environ))
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


