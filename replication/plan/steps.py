"""What a run will do: each job once, inputs first, with why it runs or is reused and what it will cost. No side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from replication.plan.cost import Cost, Estimator, shared_passes
from replication.plan.tasks import tasks_of
from replication.recipes.jobs import BROUGHT_IN
from replication.recipes.jobs_needed import Recipe, attempts, hub_sources_of, recipe, unpinned_revisions
from replication.recipes.setting import Setting
from replication.settings.clusters import Cluster, on_cluster
from sarm.job import EnvironmentProblem, Job, topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import Manifest

Action = Literal["run", "resume", "rebuild", "reuse"]
ACTIONS: Mapping[str, Action] = {"present": "reuse", "missing": "run", "interrupted": "resume", "corrupt": "rebuild"}
# Stages in which inputs come before what reads them; SAEs of one backbone stand together, so that they share one pass over the text.
STAGES = (
    "make_miniature",
    "prepare_data",
    "fetch_weights",
    "fetch_splitter",
    "pretrain_backbone",
    "import_sae",
    "train_sae",
    "train_reward",
    "harvest_states",
    "train_sparse_rm",
    "fit_safer",
    "score_benchmark",
    "score_states",
    "score_baseline",
    "judge_benchmark",
    "score_conversations",
    "steer_rewards",
    "collect_contexts",
    "explain_latents",
    "explore_latents",
)


@dataclass(frozen=True)
class Step:
    """A job of a plan."""

    job: Job
    action: Action
    why: str
    cost: Cost


@dataclass(frozen=True)
class Plan:
    """The de-duplicated work of one or several experiments.

    `passes` are the groups of SAE jobs that share one pass over the text; `cluster` is where it would run, None for this machine.
    """

    recipes: tuple[Recipe, ...]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]
    estimator: Estimator
    passes: tuple[tuple[Job, ...], ...]
    cluster: Cluster | None = None

    @property
    def todo(self) -> list[Job]:
        """The jobs that have to run, inputs first."""
        return [step.job for step in self.steps if step.action != "reuse"]

    @property
    def cost(self) -> Cost:
        """The estimate of what has to run."""
        return sum((step.cost for step in self.steps if step.action != "reuse"), Cost())


def plan(settings: Sequence[Setting], store: ArtifactStore, cluster: Cluster | None = None) -> Plan:
    """The plan of experiments against a store, with the resources of a cluster where one is given.

    Raises UsageProblems for what does not fit.
    """
    recipes = tuple(recipe(setting) for setting in settings)
    jobs = placed(ordered([job for one in recipes for job in one.jobs]), cluster)
    estimators = [Estimator.of(one) for one in recipes]
    shapes = {key: shape for estimator in estimators for key, shape in estimator.shapes.items()}
    widths = {key: width for estimator in estimators for key, width in estimator.widths.items()}
    estimator = Estimator(profile=settings[0].profile, shapes=shapes, widths=widths)
    passes = passes_of(jobs, cluster)
    known = store.entries()
    steps = []
    for asked, cost in zip(jobs, estimator.costs(jobs, passes), strict=True):
        job = with_host_memory(asked, cost)
        state = store.state(job)
        action = ACTIONS[state.status]
        why = state.reason or "in the store"
        if action == "run":
            why = why_never_built(job, known) or why
        steps.append(Step(job=job, action=action, why=why, cost=cost))
    return Plan(
        recipes=recipes, steps=tuple(steps), warnings=_warnings(settings), estimator=estimator, passes=tuple(passes), cluster=cluster
    )


def with_host_memory(job: Job, cost: Cost) -> Job:
    """The job with what its processes keep in the host's memory instead of on their cards, which a scheduler has to be asked for."""
    host = cost.memory.host * job.resources.processes
    return replace(job, resources=job.resources.model_copy(update={"offload_gb": host})) if host else job


def placed(jobs: Sequence[Job], cluster: Cluster | None) -> list[Job]:
    """The jobs with the resources that they have on a cluster; what is brought in runs on the login node."""
    return [job if cluster is None or job.kind in BROUGHT_IN else on_cluster(job, cluster) for job in jobs]


def passes_of(jobs: Sequence[Job], cluster: Cluster | None) -> list[tuple[Job, ...]]:
    """The SAE jobs that share a pass over the text: all that can on one machine, as many as one task takes on a cluster."""
    if cluster is None:
        return shared_passes(jobs)
    return [task.jobs for task in tasks_of(jobs, cluster) if task.kind == "train_sae"]


def ordered(jobs: Sequence[Job]) -> list[Job]:
    """All jobs and their inputs, each once, stage by stage."""
    places = {job.key: place for place, job in enumerate(topological_order(jobs))}
    needed = topological_order(jobs)
    first: dict[tuple[str, ...], int] = {}
    for job in needed:
        first.setdefault(_inputs(job), places[job.key])
    return sorted(needed, key=lambda job: (STAGES.index(job.kind), first[_inputs(job)], places[job.key]))


def _inputs(job: Job) -> tuple[str, ...]:
    return (job.kind, *(needed.key for _, needed in sorted(job.inputs.items())))


def fresh(setting: Setting, store: ArtifactStore) -> Setting:
    """The setting as the first attempt that is not finished: an interrupted `--fresh` is continued, a finished one begins anew."""
    return next(one for one in attempts(setting) if not all(store.has(job) for job in recipe(one).jobs))


def refuse_unpinned(settings: Sequence[Setting]) -> None:
    """Raises EnvironmentProblem when a hub revision is no commit (unknown, or a branch): such a run could not be repeated."""
    for setting in settings:
        unpinned = [repository for repository, _ in unpinned_revisions(setting)]
        if unpinned:
            named = f"profile {setting.profile.name}: revisions are not pinned ({', '.join(unpinned)})"
            raise EnvironmentProblem(f"{named}; run: {setting.fetch}")


def brought_in_steps(steps: Sequence[Step]) -> list[Step]:
    """The steps of a plan that need the network or files from elsewhere and are not done."""
    return [step for step in steps if step.job.kind in BROUGHT_IN and step.action != "reuse"]


def brought_in(steps: Sequence[Step]) -> list[Job]:
    """The jobs of these steps."""
    return [step.job for step in brought_in_steps(steps)]


def _warnings(settings: Sequence[Setting]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for setting in settings:
        for repository, what in unpinned_revisions(setting):
            found[f"{what} {repository}: revision is not pinned; `replicate fetch` pins it, a launch refuses before"] = None
        for repository in dict.fromkeys(source.repository for source, _ in hub_sources_of(setting) if source.gated):
            found[f"{repository} is gated: accept its licence on the hub and set HF_TOKEN"] = None
        for training in recipe(setting).trainings:
            if training.missing:
                found[f"row {training.row.name}: {training.missing}"] = None
    return tuple(found)


def why_never_built(job: Job, known: Sequence[Manifest]) -> str:
    """What differs from an artifact of the same name that is in the store; empty when there is none."""
    same = [manifest for manifest in known if manifest.kind == job.kind and manifest.label == job.label]
    if not same:
        return ""
    latest = max(same, key=lambda manifest: manifest.ended)
    wanted, had = job.config.content(), latest.config
    # A field that was added later stands in neither while it is at its default.
    names = (name for name in type(job.config).model_fields if wanted.get(name) != had.get(name))
    changed = [f"{name} {_told(had, name)} -> {_told(wanted, name)}" for name in names]
    if changed:
        return f"values changed: {', '.join(changed)}"
    if latest.version != job.config.version:
        return f"the code of this kind changed: version {latest.version} -> {job.config.version}"
    if latest.attempt != job.attempt:
        return f"attempt {job.attempt}"
    moved = [name for name, needed in job.inputs.items() if tuple(latest.inputs.get(name, ("", ""))) != (needed.kind, needed.key)]
    return f"its input changed: {', '.join(moved)}"


def _told(content: Mapping[str, Any], name: str) -> str:
    return repr(content[name]) if name in content else "not set"
