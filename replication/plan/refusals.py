"""What a launch refuses before anything starts: work that does not fit a card, that cannot run, or that could not be repeated."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import NamedTuple

from replication.plan.cost import Cost
from replication.plan.machine import cards, host_memory_gb
from replication.plan.steps import Plan, Step, brought_in, refuse_unpinned
from replication.recipes.jobs import divides
from replication.settings.clusters import Cluster
from replication.usage_problems import UsageProblems
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import EnvironmentProblem, IntegrityProblem, Job, JobError, UsageProblem
from sarm.resources import Resources
from sarm.store.manifest import CodeState, code_state

# Source: interface.md section 2: several at once are told by the first of these.
PRECEDENCE: tuple[type[JobError], ...] = (UsageProblem, EnvironmentProblem, IntegrityProblem)
MOST_PROCESSES = 64


class Machine(NamedTuple):
    """Where jobs would run. `gpus` is how many there are at once, None where a scheduler hands them out."""

    name: str
    gpus: int | None
    gpu_memory_gb: float
    memory_gb: float


def machine_of(cluster: Cluster) -> Machine:
    """The cards and nodes of a cluster."""
    return Machine(cluster.name, None, cluster.gpu_memory_gb, cluster.memory_per_node_gb)


def this_machine() -> Machine:
    """The host under us. Where nvidia-smi fails there is no telling what would fit, and no GPU is counted."""
    try:
        found = cards()
    except (OSError, subprocess.SubprocessError):
        found = []
    return Machine("this machine", len(found), min((card.memory_gb for card in found), default=0.0), host_memory_gb())


def refuse(plan: Plan, machine: Machine, *, allow_dirty: bool, offline: bool = False) -> None:
    """Raises the first in PRECEDENCE of everything that is wrong, with one line for each problem and its next step."""
    found = problems(plan, machine, allow_dirty=allow_dirty) + (offline_problems(plan) if offline else [])
    for kind in PRECEDENCE:
        if any(isinstance(problem, kind) for problem in found):
            # What was found beside it is told as well; the code is that of the worst.
            ordered = sorted(found, key=lambda problem: not isinstance(problem, kind))
            raise kind("\n".join(dict.fromkeys(str(problem) for problem in ordered)))


def problems(plan: Plan, machine: Machine | None, *, allow_dirty: bool, code: CodeState | None = None) -> list[JobError]:
    """Everything that is wrong with running a plan; without a machine all but what depends on one. `code` is found out if not given."""
    settings = [one.setting for one in plan.recipes]
    found: list[JobError] = []
    try:
        refuse_unpinned(settings)
    except EnvironmentProblem as problem:
        found.append(problem)
    todo = [step for step in plan.steps if step.action != "reuse"]
    if machine is not None:
        found += [problem for step in todo for problem in step_problems(step, plan, machine)]
    # Without the hub it is a trial run, and asking git would only take time.
    at_scale = [one.profile.name for one in settings if one.profile.hub_sources()]
    if todo and at_scale and not allow_dirty and (code or code_state()).dirty:
        found += [IntegrityProblem(_dirty(name)) for name in dict.fromkeys(at_scale)]
    return found


def step_problems(step: Step, plan: Plan, machine: Machine) -> list[JobError]:
    """Why one job of a plan cannot run there."""
    job, needs = step.job, step.job.resources
    name = job.label or job.kind
    found: list[JobError] = []
    batch = {SAETrainingConfig: "batch_vectors", RewardTrainingConfig: "batch_pairs"}.get(type(job.config))
    if batch is not None:
        section = "sae" if job.kind == "train_sae" else "reward"
        try:
            divides(job, batch=getattr(job.config, batch), field=f"{section}.{batch}")
        except UsageProblems as problem:
            found.append(problem)
    if needs.gpus and machine.gpus is not None and needs.gpus > machine.gpus:
        has = f"{machine.gpus or 'no'} GPU{'s' if machine.gpus > 1 else ''}"
        hint = f"--launcher slurm, or --set resources.{job.kind}.gpus={machine.gpus}"
        found.append(EnvironmentProblem(f"{name}: needs {needs.gpus} GPUs, {machine.name} has {has}; use {hint}"))
        return found
    limit = machine.gpu_memory_gb if needs.gpus else machine.memory_gb / max(1, needs.processes // needs.nodes)
    if step.cost.memory_gb > limit:
        found.append(EnvironmentProblem(_too_large(step, plan, machine, limit)))
    return found


def memory_parts(cost: Cost) -> str:
    """What a process needs memory for, GB; parts that cannot be seen in a tenth are left out."""
    return ", ".join(f"{part} {value:.1f}" for part, value in cost.memory.parts.items() if value >= 0.05)


def _too_large(step: Step, plan: Plan, machine: Machine, limit: float) -> str:
    where = "a GPU" if step.job.resources.gpus else "a process"
    needs = f"{step.job.label or step.job.kind}: needs {step.cost.memory_gb:.1f} GB {where} ({memory_parts(step.cost)})"
    return f"{needs}, {machine.name} has {limit:.0f}; {_remedy(step, plan, limit)}"


def _remedy(step: Step, plan: Plan, limit: float) -> str:
    """The smallest change of resources that makes a training fit, or what else to do."""
    kind, own = step.job.kind, step.job.resources
    for changes in _alternatives(kind, own):
        resources = own.model_copy(update=changes)
        group = next((group for group in plan.passes if step.job in group), (step.job,))
        jobs = [_with(job, resources) for job in group]
        batch = getattr(step.job.config, "batch_pairs", resources.processes)
        if batch % resources.processes == 0 and plan.estimator.costs(jobs, [jobs] if kind == "train_sae" else [])[0].memory_gb <= limit:
            options = " ".join(f"--set resources.{kind}.{name}={str(value).lower()}" for name, value in changes.items())
            return f"it fits with {options} (or the same in the cluster's file)"
    if kind == "train_sae":
        return "train fewer SAEs in one pass (saes_per_task in the cluster's file), or take a larger card"
    if kind == "train_reward":
        return "no number of processes makes it fit; take a larger card"
    return "lower the batch_tokens of its section with --set, or take a larger card"


def _alternatives(kind: str, own: Resources) -> list[dict[str, int | bool]]:
    if kind == "train_sae":
        return [{"micro_batch_tokens": own.micro_batch_tokens // 2**power} for power in range(1, 5)]
    if kind != "train_reward":
        return []
    more: list[dict[str, int | bool]] = []
    processes = own.processes
    while processes <= MOST_PROCESSES:
        spread: dict[str, int | bool] = {} if processes == own.processes else {"processes": processes, "gpus": processes if own.gpus else 0}
        for stage in range(own.zero_stage, 4):
            sharded = {**spread, "zero_stage": stage} if stage != own.zero_stage else spread
            more += [sharded] if sharded else []
            more += [] if own.activation_checkpointing else [{**sharded, "activation_checkpointing": True}]
        processes *= 2
    return more


def _with(job: Job, resources: Resources) -> Job:
    return replace(job, resources=resources)


def offline_problems(plan: Plan) -> list[JobError]:
    """What would have to be fetched from the hub although the network is not to be used."""
    missing = [job for job in brought_in(plan.steps) if getattr(job.config, "origin", "") in ("hub", "url")]
    names = " ".join(dict.fromkeys(one.setting.experiment.name for one in plan.recipes))
    profile = plan.recipes[0].setting.profile_option
    fix = f"run where there is a network: replicate fetch {names} --profile {profile}"
    return [EnvironmentProblem(f"{job.label} ({job.kind}/{job.short_key}) is not in the store; {fix}") for job in missing]


def _dirty(profile: str) -> str:
    return (
        f"profile {profile}: the code has changes that are in no commit, so its results could not be traced to one; "
        "commit them, or take results that are marked +dirty with --allow-dirty"
    )
