"""The state of a store: what the store is building and has built, and what Slurm makes of the jobs that were submitted from it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from replication.frozen import Frozen
from replication.launch.slurm.calls import Queue
from replication.launch.slurm.records import submissions
from replication.launch.slurm.status import JobStatus, job_statuses, submission_logs
from replication.usage_problems import UsageProblems
from sarm.job import KEY_LENGTH, EnvironmentProblem
from sarm.store.artifacts import ArtifactStore, MissingArtifact


class Unfinished(Frozen):
    """Work that a process is at, that was stopped, or whose last run failed (`reason`)."""

    kind: str
    key: str
    state: Literal["running", "interrupted", "failed"]
    checkpoint: bool
    reason: str = ""


class StoreStatus(Frozen):
    """The store and Slurm at one moment. `silent` says why Slurm could not be asked, empty where it was or need not be."""

    unfinished: tuple[Unfinished, ...]
    done: int
    submitted: tuple[JobStatus, ...] = ()
    silent: str = Field(default="", description="Slurm's trouble; then `submitted` is empty although jobs were submitted.")


def store_status(store: ArtifactStore, queue: Queue) -> StoreStatus:
    """What is done, running and submitted; Slurm is asked only where jobs were submitted from this store."""
    unfinished = tuple(
        Unfinished(
            kind=work.folder.parent.parent.name,
            key=work.key[:KEY_LENGTH],
            state="running" if work.running else "failed" if work.failure else "interrupted",
            checkpoint=bool(work.checkpoint_time),
            reason=work.failure,
        )
        for work in store.staging.all()
    )
    silent = ""
    submitted: tuple[JobStatus, ...] = ()
    if submissions(store):
        try:
            submitted = tuple(job_statuses(store, queue))
        except EnvironmentProblem as problem:
            silent = str(problem)
    return StoreStatus(unfinished=unfinished, done=len(store.entries()), submitted=submitted, silent=silent)


def status_lines(found: StoreStatus) -> list[str]:
    """A status as text: submitted jobs that are not done, unfinished work, sums."""
    told = []
    for one in found.submitted:
        if one.artifact == "present":
            continue
        reason = f" ({one.reason})" if one.reason else ""
        told.append(f"{one.state.lower() + reason:<24} {one.slurm:<12} {one.key[:KEY_LENGTH]}  {one.label} {one.progress}".rstrip())
        if one.held:
            told.append(f"    held until somebody releases it: scontrol release {one.slurm}")
    for each in found.unfinished:
        kept = "with a checkpoint" if each.checkpoint else "no checkpoint yet"
        told.append(f"{each.state:<12}{each.key}  {each.kind}, {kept}" + (f": {each.reason}" if each.reason else ""))
    if found.submitted:
        there = sum(one.artifact == "present" for one in found.submitted)
        told.append(f"{len(found.submitted)} jobs submitted to Slurm, {there} of them in the store")
    return [*told, f"{found.done} artifacts done, {len(found.unfinished)} unfinished"]


def logs_of(store: ArtifactStore, name: str) -> list[Path]:
    """The logs of a job by the first digits of its key (as `kind/key` or `kind-key` too) or its Slurm id: its own, then its script's.

    Raises MissingArtifact, or UsageProblems when several jobs fit.
    """
    if any(name in (one.slurm, one.slurm.partition("_")[0]) for one in submissions(store).values()):
        return _existing(store, name, submission_logs(store, name))
    key = name.rpartition("/")[2].rpartition("-")[2]
    running = [work.folder / "log.txt" for work in store.staging.all() if work.key.startswith(key)]
    kept = sorted((store.root / ".logs").glob(f"*-{key[:KEY_LENGTH]}*.txt"))
    found = [path for path in running or kept if path.is_file()]
    if len({path.stem for path in found}) > 1 and not running:
        raise UsageProblems([f"{key!r} fits several jobs: {', '.join(path.stem for path in found)}; give more digits"])
    try:
        submitted = submission_logs(store, key if found else name)
    except MissingArtifact:
        submitted = []
    return _existing(store, name, list(dict.fromkeys([*found[:1], *submitted])))


def _existing(store: ArtifactStore, name: str, paths: list[Path]) -> list[Path]:
    if not paths:
        raise MissingArtifact(f"no log of a job {name!r} in {store.root} (yet); see: replicate status, replicate store list")
    return paths
