"""Submits a plan to Slurm as a chain of batch scripts, or prints them. Safe to repeat: only what is missing is submitted."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import sarm
from replication.launch.interface import Launcher, Watch
from replication.launch.slurm.calls import Queue, Slurm, SlurmState
from replication.launch.slurm.chain import Bundle, bundles, groups
from replication.launch.slurm.records import Submission, folder, record, submissions
from replication.launch.slurm.script import DEFAULT_REGISTRY, LaunchFolders, Script, indices, launch_folders, render
from replication.launch.slurm.status import states_of
from replication.plan.tasks import Task, tasks_of
from replication.recipes.jobs import BROUGHT_IN
from replication.settings.clusters import Cluster, SlurmNeeds, on_cluster, slurm_needs
from sarm.job import KEY_LENGTH, EnvironmentProblem, Job, JobRequest
from sarm.store.artifacts import ArtifactStore
from sarm.store.whole_files import write_whole

# Submits a bundle's script under a name; gives the Slurm id.
HandOver = Callable[[str, str, Bundle], str]


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)


@dataclass(frozen=True)
class Chain:
    """The scripts of a plan, each made when the ids that it waits for are known."""

    cluster: Cluster
    command: str
    folders: LaunchFolders
    registry: str = DEFAULT_REGISTRY

    def hand_over(self, jobs: Sequence[Job], ids: Mapping[str, str], submit: HandOver) -> dict[str, str]:
        """Make and submit the scripts of jobs that are `on_cluster`, inputs first; `ids` (key -> Slurm id) are under way already.

        Gives the ids of all. Raises UsageProblems for what the cluster does not have, before the first is submitted.
        """
        asked = groups(tasks_of(jobs, self.cluster), self.cluster)
        known = dict(ids)
        for needs, tasks in asked:
            for bundle in bundles(tasks, known):
                name = _name(bundle)
                known |= bundle.ids(submit(name, self.text(name, bundle, needs), bundle))
        return known

    def text(self, name: str, bundle: Bundle, needs: SlurmNeeds) -> str:
        """The script of one bundle."""
        about = [f"Written by: {self.command}"]
        for index, task in bundle.tasks.items():
            which = f"task {index}: " if bundle.array else ""
            about += [f"{which}{job.label or job.kind} ({job.kind}/{job.short_key})" for job in task.jobs]
        script = Script(
            name=name,
            about=tuple(about),
            ask=needs,
            command=self.command,
            array=indices(list(bundle.tasks)) if bundle.array else "",
            requests={index: [JobRequest.of(job) for job in task.jobs] for index, task in bundle.tasks.items()},
            registry=self.registry,
        )
        return render(script, self.cluster, self.folders)


def _name(bundle: Bundle) -> str:
    tasks: Sequence[Task] = list(bundle.tasks.values())
    kind = tasks[0].kind.replace("_", "-")
    keys = [job.key for task in tasks for job in task.jobs]
    digits = keys[0] if len(keys) == 1 else hashlib.sha256("".join(keys).encode()).hexdigest()
    return f"sarm-{kind}-{digits[:KEY_LENGTH]}"


def _folders(store: ArtifactStore) -> LaunchFolders:
    # Not resolved: a virtual environment's interpreter is a link out of it.
    return launch_folders(store.root, Path(sys.executable).parent, Path(sarm.__file__).resolve().parent.parent)


@dataclass(frozen=True)
class SlurmLauncher:
    """Submits what is missing; what is under way already is waited for, never submitted twice.

    `command` is what the user types to go on. `here` runs what needs the network, on this host and before anything is submitted.
    """

    command: str
    cluster: Cluster
    here: Launcher
    queue: Queue = field(default_factory=Slurm)
    report: Callable[[str], None] = _to_stderr
    registry: str = DEFAULT_REGISTRY

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        """See Launcher. Returns 0 once all is submitted: artifacts come later, and the same command then renders them.

        Each job is told as a `waiting` event with its Slurm id. Raises UsageProblems for what the cluster does not have,
        EnvironmentProblem when Slurm does not answer or refuses.
        """
        away = [on_cluster(job, self.cluster) for job in plan if job.kind not in BROUGHT_IN]
        for job in away:
            slurm_needs(job, self.cluster)
        network = [job for job in plan if job.kind in BROUGHT_IN]
        if network:
            # Asked first: hours of downloads must not end in "no sbatch here".
            self.queue.states([])
            code = self.here.launch(network, store, watch)
            if code:
                return code
        todo = [job for job in away if not store.has(job)]
        known = {key: one for key, one in submissions(store).items() if key in {job.key for job in todo}}
        states = states_of(list(known.values()), self.queue)
        live = {key: one.slurm for key, one in known.items() if states[key].live}
        # Jobs that wait for what will never come would stay in the queue for ever.
        doomed = [one.slurm for key, one in known.items() if states[key].doomed]
        self.queue.cancel(list(dict.fromkeys(doomed)))
        new = self._submit([job for job in todo if job.key not in live], live, store)
        self._tell(todo, new, live=live, before=known, states=states, watch=watch)
        return 0

    def _submit(self, jobs: Sequence[Job], live: Mapping[str, str], store: ArtifactStore) -> dict[str, str]:
        for name in ("scripts", "logs", "jobs"):
            try:
                (folder(store) / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"the store {store.root} cannot be written ({error.strerror}); choose another with --store"
                raise EnvironmentProblem(problem) from error

        def submit(name: str, text: str, bundle: Bundle) -> str:
            script = folder(store) / "scripts" / f"{name}.sh"
            write_whole(script, text)
            number = self.queue.submit(script, options=_options(name, bundle, folder(store) / "logs"))
            # At once: what is submitted and not recorded would be submitted again.
            record(store, self._records(name, bundle, number))
            return number

        return Chain(self.cluster, self.command, _folders(store), self.registry).hand_over(jobs, live, submit)

    def _records(self, name: str, bundle: Bundle, number: str) -> list[Submission]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        ids = bundle.ids(number)
        return [
            Submission(
                key=job.key,
                kind=job.kind,
                label=job.label,
                slurm=ids[job.key],
                script=f"{name}.sh",
                log=f"{name}-{ids[job.key]}.out",
                cluster=self.cluster.name,
                submitted=now,
            )
            for task in bundle.tasks.values()
            for job in task.jobs
        ]

    def _tell(
        self,
        todo: Sequence[Job],
        ids: Mapping[str, str],
        *,
        live: Mapping[str, str],
        before: Mapping[str, Submission],
        states: Mapping[str, SlurmState],
        watch: Watch,
    ) -> None:
        for job in todo:
            note = f"is Slurm job {ids[job.key]}" if job.key in live else f"submitted as Slurm job {ids[job.key]}"
            if job.key in live:
                note += f" already ({states[job.key].state})"
            elif job.key in before:
                note += f" (its last one, {before[job.key].slurm}, ended as {states[job.key].state})"
            watch({"event": "waiting", "key": job.key, "kind": job.kind, "label": job.label, "note": note})
        if todo:
            sent = len({one.partition("_")[0] for key, one in ids.items() if key not in live})
            self.report(
                f"{len(todo) - len(live)} jobs submitted to {self.cluster.name} in {sent} scripts, {len(live)} were under way already\n"
                f"see them with: replicate status; when they are done, render with: {self.command}"
            )


def _options(name: str, bundle: Bundle, logs: Path) -> list[str]:
    # Slurm reads % in the pattern of a log's name.
    place = str(logs / name).replace("%", "%%")
    dependencies = [f"--dependency={bundle.dependencies}"] if bundle.dependencies else []
    return [*dependencies, "--kill-on-invalid-dep=yes", f"--output={place}-{'%A_%a' if bundle.array else '%j'}.out"]


@dataclass(frozen=True)
class PrintLauncher:
    """Prints the scripts of a plan and how they hang together. Touches neither store nor Slurm."""

    command: str
    cluster: Cluster
    write: Callable[[str], None] = _to_stdout
    registry: str = DEFAULT_REGISTRY

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        """See Launcher. Ids stand for those that Slurm would give: 1, 2, ... Raises UsageProblems as SlurmLauncher does."""
        for job in (job for job in plan if job.kind in BROUGHT_IN):
            self.write(f"# first, on this host: {job.label or job.kind} ({job.kind}/{job.short_key})\n")
        away = [on_cluster(job, self.cluster) for job in plan if job.kind not in BROUGHT_IN]
        count = 0

        def submit(name: str, text: str, bundle: Bundle) -> str:
            nonlocal count
            count += 1
            waits = f" --dependency={bundle.dependencies}" if bundle.dependencies else ""
            self.write(f"#### {count}: sbatch --kill-on-invalid-dep=yes{waits} {name}.sh\n{text}\n")
            return str(count)

        Chain(self.cluster, self.command, _folders(store), self.registry).hand_over(away, {}, submit)
        return 0
