"""Tasks to Slurm arrays and dependencies. Pure: the ids of what was submitted so far come in, bundles come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replication.plan.tasks import Task
from replication.settings.clusters import Cluster, SlurmNeeds, slurm_needs


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


def groups(tasks: Sequence[Task], cluster: Cluster) -> list[tuple[SlurmNeeds, list[Task]]]:
    """Tasks of one kind that ask for the same and stand equally deep in the plan, inputs first; none needs another of its group."""
    depths: dict[str, int] = {}
    found: dict[tuple[int, str, SlurmNeeds], list[Task]] = {}
    for task in tasks:
        depth = 1 + max((depths[key] for key in task.needs if key in depths), default=-1)
        depths |= dict.fromkeys((job.key for job in task.jobs), depth)
        found.setdefault((depth, task.kind, slurm_needs(task.jobs[0], cluster)), []).append(task)
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
