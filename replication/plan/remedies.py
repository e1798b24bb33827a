"""What would make a job fit that does not: first other resources, which leave its key alone, and apart from them another job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from replication.plan.cost import Cost
from replication.plan.machine import Machine, room
from replication.plan.steps import Plan, Step
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.job import Job, Resources

MOST_PROCESSES = 64
Changes = dict[str, Any]


def remedy(step: Step, plan: Plan, machine: Machine) -> str:
    """The first change of resources that makes a job fit, or what else to do; and whether bfloat16 moments would do as well."""
    kind, own = step.job.kind, step.job.resources
    for alternative in _alternatives(step.job, machine):
        changes = {name: value for name, value in alternative.items() if value != getattr(own, name)}
        resources = own.model_copy(update=changes)
        batch = getattr(step.job.config, "batch_pairs", resources.processes)
        if batch % resources.processes == 0 and fits(_cost(step, plan, resources), resources, machine):
            return f"it fits with {_options(kind, changes)} (or the same in the cluster's file){_another_job(step, plan, machine)}"
    other = _another_job(step, plan, machine)
    if kind == "train_sae":
        return f"train fewer SAEs in one pass (saes_per_task in the cluster's file), or take a larger card{other}"
    if kind == "train_reward":
        return f"no number of processes makes it fit; take a larger card{other}"
    return "lower the batch_tokens of its section with --set, or take a larger card"


def fits(cost: Cost, resources: Resources, machine: Machine) -> bool:
    """Whether a process has the memory that it needs, on its card and in the host."""
    host = cost.memory.host * resources.processes / resources.nodes
    return cost.memory_gb <= room(resources, machine) and host <= machine.memory_gb


def _cost(step: Step, plan: Plan, resources: Resources, config: Changes | None = None) -> Cost:
    """What a job would cost with other resources and perhaps another config; an SAE with those that share its pass over the text."""
    group: Sequence[Job] = next((group for group in plan.passes if step.job in group), (step.job,))
    jobs = [replace(job, resources=resources, config=job.config.model_copy(update=config or {})) for job in group]
    return plan.estimator.costs(jobs, [jobs] if step.job.kind == "train_sae" else [])[0]


def _options(kind: str, changes: Mapping[str, Any]) -> str:
    return " ".join(f"--set resources.{kind}.{name}={str(value).lower()}" for name, value in changes.items())


def _alternatives(job: Job, machine: Machine) -> Iterator[Changes]:
    """Other resources in the order in which they are named."""
    own = job.resources
    if job.kind == "train_sae":
        yield from ({"micro_batch_tokens": own.micro_batch_tokens // 2**power} for power in range(1, 5))
    if job.config.spreads and own.gpus:
        # One model over several cards of a node.
        yield from ({"processes": 1, "gpus": gpus} for gpus in range(2, machine.node_gpus + 1) if gpus > own.gpus or own.processes > 1)
    if job.kind == "train_reward":
        for changes in _ways(own, machine):
            if changes:
                yield changes
            if not own.activation_checkpointing:
                yield {**changes, "activation_checkpointing": True}


def _ways(own: Resources, machine: Machine) -> Iterator[Changes]:
    """Ways to train a reward model: on the cards that it has, on more of them, on one without ZeRO, with the host's help."""
    processes = own.processes
    # Cards that are not there help nobody; a scheduler may have any number.
    most = MOST_PROCESSES if machine.gpus is None or not own.gpus else machine.gpus
    while processes <= most:
        spread: Changes = {} if processes == own.processes else {"processes": processes, "gpus": processes if own.gpus else 0}
        # In one process there is nothing to share.
        stages = range(own.zero_stage, 4) if processes > 1 else (own.zero_stage,)
        yield from ({**spread, "zero_stage": stage} if stage != own.zero_stage else spread for stage in stages)
        processes *= 2
    if own.processes > 1 or own.zero_stage:
        yield {"processes": 1, "gpus": 1 if own.gpus else 0, "zero_stage": 0}
    if own.gpus and own.offload == "none":
        # DeepSpeed offloads with ZeRO alone, one process without it does by itself.
        yield {**({"zero_stage": 2} if own.processes > 1 and not own.zero_stage else {}), "offload": "optimizer"}


def _another_job(step: Step, plan: Plan, machine: Machine) -> str:
    """Moments in bfloat16 change numbers, and with them the job's key: they are named apart. Empty where they would not help."""
    config, own = step.job.config, step.job.resources
    if isinstance(config, SAETrainingConfig) and (config.moments, config.dtype) == ("as-dtype", "float32"):
        section, changes = "sae", {"zero_stage": 0}
    elif isinstance(config, RewardTrainingConfig) and config.moments == "float32":
        section, changes = "reward", {"zero_stage": 0, "processes": 1, "gpus": min(own.gpus, 1)}
    else:
        return ""
    changes = {name: value for name, value in changes.items() if value != getattr(own, name)}
    resources = own.model_copy(update=changes)
    if not fits(_cost(step, plan, resources, {"moments": "bfloat16"}), resources, machine):
        return ""
    options = " ".join(one for one in (f"--set {section}.moments=bfloat16", _options(step.job.kind, changes)) if one)
    return f"; another job, with another key and other numbers, fits with {options}"
