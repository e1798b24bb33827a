"""How submitted jobs stand, where their logs are, and how to end them: Slurm and the store read together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from replication.frozen import Frozen
from replication.launch.slurm.calls import UNKNOWN, Queue, SlurmState
from replication.launch.slurm.records import Submission, folder, job_folder, submissions
from replication.settings.clusters import Cluster
from replication.usage_problems import UsageProblems
from sarm.store.artifacts import ArtifactStore, MissingArtifact

EVENTS_TAIL_BYTES = 8192


class JobStatus(Frozen):
    """One submitted job. `artifact` is the store's word, `state` Slurm's; a `held` one waits until somebody releases it."""

    key: str
    kind: str
    label: str
    slurm: str
    state: str
    reason: str
    artifact: Literal["present", "missing", "corrupt", "interrupted"]
    progress: str
    log: str
    held: bool = False


def states_of(jobs: Sequence[Submission], queue: Queue) -> dict[str, SlurmState]:
    """The Slurm state of each submission, by the job's key. An id that Slurm has given to another job since is unknown."""
    states = queue.states({one.slurm for one in jobs}) if jobs else {}
    return {one.key: _checked(one, states[one.slurm]) for one in jobs}


def _checked(one: Submission, state: SlurmState) -> SlurmState:
    same = state.name in ("", one.script.removesuffix(".sh"))
    return state if same else SlurmState(UNKNOWN)


def job_statuses(store: ArtifactStore, queue: Queue) -> list[JobStatus]:
    """Every job that was submitted from this store, oldest first. Raises EnvironmentProblem when Slurm does not answer."""
    known = list(submissions(store).values())
    states = states_of(known, queue)
    return [
        JobStatus(
            key=one.key,
            kind=one.kind,
            label=one.label,
            slurm=one.slurm,
            state=states[one.key].state,
            reason=states[one.key].reason if states[one.key].reason != "None" else "",
            artifact=store.state(one).status,
            progress=_progress(job_folder(store, one.slurm) / "events.jsonl", one.key) if states[one.key].live else "",
            log=str(folder(store) / "logs" / one.log),
            held=states[one.key].held,
        )
        for one in known
    ]


def _progress(events: Path, key: str) -> str:
    """`done/total unit` of the newest progress event of a job; empty before the first."""
    try:
        with events.open("rb") as lines:
            lines.seek(max(0, events.stat().st_size - EVENTS_TAIL_BYTES))
            tail = lines.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    for line in reversed(tail):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, Mapping) and event.get("event") == "progress" and event.get("key") == key:
            return f"{event['done']}/{event['total']} {event['unit']}"
    return ""


def submissions_named(store: ArtifactStore, name: str) -> list[Submission]:
    """Submissions whose job's key begins so, or whose Slurm id it is (an array's number names all its tasks).

    Raises MissingArtifact where there is none, UsageProblems for an empty name.
    """
    if not name:
        raise UsageProblems(["give the first digits of a key or a Slurm id; see: replicate status"])
    digits = name.rpartition("/")[2]
    known = submissions(store).values()
    found = [one for one in known if name == one.slurm or name == one.slurm.partition("_")[0]] or [
        one for one in known if one.key.startswith(digits)
    ]
    if not found:
        raise MissingArtifact(f"no submitted job {name!r} in {store.root}; see: replicate status")
    return found


def submission_logs(store: ArtifactStore, name: str) -> list[Path]:
    """The logs of the jobs of that name that exist: the job's own, then what its batch script said. Raises as `named`."""
    paths = [path for one in submissions_named(store, name) for path in (store.log(one), folder(store) / "logs" / one.log)]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def cancel_jobs(store: ArtifactStore, name: str, queue: Queue) -> list[Submission]:
    """End the jobs of that name that wait or run; a running one writes its checkpoint first. Gives what was ended.

    Slurm ends what waits for them (`--kill-on-invalid-dep`). Raises as `named`, and EnvironmentProblem.
    """
    found = submissions_named(store, name)
    states = states_of(found, queue)
    live = [one for one in found if states[one.key].live or states[one.key].doomed]
    queue.cancel(list(dict.fromkeys(one.slurm for one in live)))
    return live


def mismatches(cluster: Cluster, configuration: Mapping[str, str], partitions: Sequence[tuple[str, str, str]]) -> list[str]:
    """What a cluster's description says and its Slurm does not, one line each; `partitions` are (name, GPUs, limit)."""
    found = []
    if cluster.requeue and configuration.get("JobRequeue") == "0":
        found.append("JobRequeue is 0: sbatch --requeue of the scripts overrides it for them; ask whether that is permitted")
    if configuration.get("PreemptMode", "OFF").startswith("CANCEL"):
        found.append("PreemptMode is CANCEL: preempted jobs do not come back; the same command submits them again")
    gpus = sorted({gpus for _, gpus, _ in partitions})
    if cluster.gpu_name and not any(f"gpu:{cluster.gpu_name}:" in one for one in gpus):
        found.append(f"no partition has a GPU of type {cluster.gpu_name}: {', '.join(gpus)}; set gpu_name")
    limits = [hours for _, _, limit in partitions if (hours := hours_of(limit))]
    if limits and max(limits) < cluster.max_hours:
        found.append(f"max_hours is {cluster.max_hours:g}, the longest partition gives {max(limits):g}")
    return found


def hours_of(limit: str) -> float:
    """A time limit of Slurm ([days-]hours:minutes:seconds, minutes:seconds or minutes) in hours; 0 for an unlimited one."""
    if not limit or not limit[0].isdigit():
        return 0.0
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes = (*parts, 0)[:2]
    else:
        hours, minutes = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return 24 * int(days or 0) + hours + minutes / 60
