"""Jobs to Slurm tasks, arrays and dependencies. Pure: the ids of what was submitted so far come in, bundles come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replication.cost import pass_of
from replication.launch.slurm_clusters import Ask, Cluster, ask
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


@dataclass(frozen=True)
class Bundle:
    """One sbatch: a single task (index 0) or an array.

    It starts after the Slurm jobs `after` are done; with `corresponding`, each of its tasks after the task of the same index there.
    """

    tasks: Mapping[int, Task]
    after: tuple[str, ...] = ()
    corresponding: str = ""

    @property
    def array(self) -> bool:
        """Whether it is an array."""
        return len(self.tasks) > 1

    @property
    def dependencies(self) -> str:
        """The value of `--dependency`, empty without any."""
        parts = [":".join(["afterok", *self.after])] if self.after else []
        return ",".join(parts + ([f"aftercorr:{self.corresponding}"] if self.corresponding else []))

    def ids(self, number: str) -> dict[str, str]:
        """Key -> Slurm id of each job, once the bundle has its number."""
        return {
            job.key: f"{number}_{index}" if self.array else number for index, task in self.tasks.items() for job in task.jobs
        }


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


def groups(tasks: Sequence[Task], cluster: Cluster) -> list[tuple[Ask, list[Task]]]:
    """Tasks of one kind that ask for the same and stand equally deep in the plan, inputs first; none needs another of its group."""
    depths: dict[str, int] = {}
    found: dict[tuple[int, str, Ask], list[Task]] = {}
    for task in tasks:
        depth = 1 + max((depths[key] for key in task.needs if key in depths), default=-1)
        depths |= dict.fromkeys((job.key for job in task.jobs), depth)
        found.setdefault((depth, task.kind, ask(task.jobs[0], cluster)), []).append(task)
    return [(asked, group) for (depth, _, asked), group in sorted(found.items(), key=lambda entry: entry[0][0])]


def bundles(tasks: Sequence[Task], ids: Mapping[str, str]) -> list[Bundle]:
    """Arrays as large as the dependencies permit; `ids` are those of the inputs that are not done yet (key -> Slurm id).

    Tasks that wait for the same jobs become an array. Tasks that each wait for one task of an array (and for nothing else that
    differs) become an array with the same indices, so that none waits for the whole of it.
    """
    arrays: list[tuple[tuple[str, tuple[str, ...]], dict[int, Task]]] = []
    for task in tasks:
        waits = sorted({ids[key] for key in task.needs if key in ids})
        of_arrays = [one for one in waits if "_" in one]
        upstream, _, index = of_arrays[0].partition("_") if len(of_arrays) == 1 else ("", "", "")
        rest = tuple(one for one in waits if not upstream or one != of_arrays[0])
        open_ = [members for key, members in arrays if key == (upstream, rest) and (not upstream or int(index) not in members)]
        if not open_:
            open_ = [{}]
            arrays.append(((upstream, rest), open_[0]))
        open_[0][int(index) if upstream else len(open_[0])] = task
    return [_bundle(upstream, rest, members) for (upstream, rest), members in arrays]


def _bundle(upstream: str, rest: tuple[str, ...], members: Mapping[int, Task]) -> Bundle:
    ordered = dict(sorted(members.items()))
    if len(ordered) > 1:
        return Bundle(ordered, after=rest, corresponding=upstream)
    ((index, task),) = ordered.items()
    return Bundle({0: task}, after=(*rest, f"{upstream}_{index}") if upstream else rest)
