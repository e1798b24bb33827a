"""Which jobs run together as one task of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replication.plan.cost import pass_of
from replication.settings.clusters import Cluster
from sarm.job import Job


@dataclass(frozen=True)
class Task:
    """What one Slurm job or array task does: one job, or several SAEs that share a pass over the text. Never empty."""

    jobs: tuple[Job, ...]

    @property
    def kind(self) -> str:
        """The kind of all its jobs."""
        return self.jobs[0].kind

    @property
    def needs(self) -> frozenset[str]:
        """Keys of all inputs."""
        return frozenset(needed.key for job in self.jobs for needed in job.inputs.values())


def tasks_of(jobs: Sequence[Job], cluster: Cluster) -> list[Task]:
    """The jobs in order; SAEs that read the same text through the same backbone together, as many as the cluster says."""
    shared: dict[object, list[Job]] = {}
    for job in jobs:
        passes = shared.setdefault(pass_of(job), [])
        if len(passes) == cluster.saes_per_task:
            # This pass is full: it goes on under a name of its own, and a new one begins.
            shared[(pass_of(job), passes[0].key)] = passes
            shared[pass_of(job)] = passes = []
        passes.append(job)
    places = {job.key: place for place, job in enumerate(jobs)}
    return sorted((Task(tuple(group)) for group in shared.values()), key=lambda task: places[task.jobs[0].key])
