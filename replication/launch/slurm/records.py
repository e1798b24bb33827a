"""What was submitted: one line of JSON a job, in the store, never changed; the newest line of a key counts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from replication.frozen import Frozen
from sarm.job import IntegrityProblem
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import as_line, read_log

FOLDER = ".slurm"
RECORDS = "submissions.jsonl"


class Submission(Frozen):
    """One job that was handed to Slurm."""

    key: str = Field(description="Key of the job.")
    kind: str
    label: str
    slurm: str = Field(description="Slurm's id: `123`, or `123_4` for a task of an array.")
    script: str = Field(description="Name of the script in the store's `.slurm/scripts`.")
    log: str = Field(description="Name of the log in the store's `.slurm/logs`.")
    cluster: str
    submitted: str = Field(description="UTC, ISO 8601.")


def folder(store: ArtifactStore) -> Path:
    """Where the store keeps what belongs to Slurm: scripts, logs, one folder for each running job, the records."""
    return store.root / FOLDER


def job_folder(store: ArtifactStore, slurm: str) -> Path:
    """Where a Slurm job keeps its request, events, stop file and state; it may not exist."""
    return folder(store) / "jobs" / slurm


def submissions(store: ArtifactStore) -> dict[str, Submission]:
    """Key -> its newest submission. A line torn by a kill is left out. Raises IntegrityProblem for a line that is no submission of ours."""
    found: dict[str, Submission] = {}
    path = folder(store) / RECORDS
    for number, row in enumerate(read_log(path).rows, start=1):
        try:
            one = Submission.model_validate(row)
        except ValidationError as error:
            raise IntegrityProblem(f"{path}: row {number} is no submission of this version; move the file away to submit anew") from error
        found[one.key] = one
    return found


def record(store: ArtifactStore, new: Sequence[Submission]) -> None:
    """Append submissions: in one write, so that two submitting processes do not mix their lines. Raises OSError."""
    path = folder(store) / RECORDS
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(as_line(one) for one in new)
    # A line left half must not swallow ours: an empty line harms nobody.
    whole = not path.exists() or path.stat().st_size == 0 or path.read_bytes()[-1:] == b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (("" if whole else "\n") + text).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
