"""What a launch refuses before anything starts: work that does not fit a card, that cannot run, or that could not be repeated."""

from __future__ import annotations

from replication.plan.cost import Cost
from replication.plan.machine import Machine, room
from replication.plan.remedies import fits, remedy
from replication.plan.steps import Plan, Step, brought_in, refuse_unpinned
from replication.recipes.jobs import BROUGHT_IN, evenly_shared
from replication.settings.clusters import slurm_needs
from replication.usage_problems import UsageProblems
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import EnvironmentProblem, IntegrityProblem, JobError, UsageProblem
from sarm.store.manifest import CodeState, code_state

# Source: interface.md section 2: several at once are told by the first of these.
PRECEDENCE: tuple[type[JobError], ...] = (UsageProblem, EnvironmentProblem, IntegrityProblem)


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
            evenly_shared(job, batch=getattr(job.config, batch), field=f"{section}.{batch}")
        except UsageProblems as problem:
            found.append(problem)
    if plan.cluster is not None and job.kind not in BROUGHT_IN:
        try:
            slurm_needs(job, plan.cluster)
        except UsageProblems as problem:
            found.append(problem)
    if needs.gpus and machine.gpus is not None and needs.gpus > machine.gpus:
        has = f"{machine.gpus or 'no'} GPU{'s' if machine.gpus > 1 else ''}"
        hint = f"--launcher slurm, or --set resources.{job.kind}.gpus={machine.gpus}"
        found.append(EnvironmentProblem(f"{name}: needs {needs.gpus} GPUs, {machine.name} has {has}; use {hint}"))
        return found
    if not fits(step.cost, needs, machine):
        found.append(EnvironmentProblem(f"{_needs(step, machine)}; {remedy(step, plan, machine)}"))
    elif needs.gpus and machine.free_gb and step.cost.memory_gb > (free := min(machine.free_gb[: needs.gpus])):
        busy = f"{name}: needs {step.cost.memory_gb:.1f} GB a GPU, but of a GPU's {machine.gpu_memory_gb:.0f} only {free:.0f} are free"
        hint = "another program uses it (see nvidia-smi); end it, or name free GPUs in CUDA_VISIBLE_DEVICES"
        found.append(EnvironmentProblem(f"{busy}: {hint}"))
    return found


def memory_parts(cost: Cost) -> str:
    """What a process needs memory for, GB; parts that cannot be seen in a tenth are left out."""
    return ", ".join(f"{part} {value:.1f}" for part, value in cost.memory.parts.items() if value >= 0.05)


def memory_moment(cost: Cost) -> str:
    """When a process needs most, as words that follow what it needs; empty where it is the same all the time."""
    return f" in {cost.memory.moment}" if cost.memory.moment else ""


def _needs(step: Step, machine: Machine) -> str:
    """What a job needs, and what there is of it."""
    cost, needs = step.cost, step.job.resources
    name, limit = step.job.label or step.job.kind, room(needs, machine)
    if cost.memory_gb <= limit:
        host = cost.memory.host * needs.processes / needs.nodes
        return f"{name}: offload keeps {host:.0f} GB in a host's memory, {machine.name} has {machine.memory_gb:.0f}"
    where = "a GPU" if needs.gpus else "a process"
    asked = f"{name}: needs {cost.memory_gb:.1f} GB {where}{memory_moment(cost)} ({memory_parts(cost)})"
    return f"{asked}, {machine.name} has {limit:.0f}"


def offline_problems(plan: Plan) -> list[JobError]:
    """What would have to be fetched from the hub although the network is not to be used."""
    missing = [job for job in brought_in(plan.steps) if getattr(job.config, "origin", "") in ("hub", "url")]
    names = " ".join(dict.fromkeys(one.setting.experiment.whole for one in plan.recipes))
    fix = f"run where there is a network: {plan.recipes[0].setting.command(f'fetch {names}', without=('--seeds',))}"
    return [EnvironmentProblem(f"{job.label} ({job.kind}/{job.short_key}) is not in the store; {fix}") for job in missing]


def _dirty(profile: str) -> str:
    return (
        f"profile {profile}: the code has changes that are in no commit, so its results could not be traced to one; "
        "commit them, or take results that are marked +dirty with --allow-dirty"
    )
