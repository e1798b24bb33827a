"""A plan as a reader sees it: each job, sums by stage, what is trained, what controls and seeds add; on a terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from replication.plan.calibration import Compared
from replication.plan.cost import PEAK_FLOPS, UTILISATION, Cost
from replication.plan.refusals import memory_moment, memory_parts
from replication.plan.steps import Plan, Step, brought_in_steps
from replication.plan.totals import Amount, Work, added_cost, further_seed, stages, work_of
from replication.settings.clusters import Cluster
from replication.terminal.fitting import wrapped
from replication.terminal.grid import Column, GridRow, Piece, laid_whole


def peaks(cluster: Cluster | None) -> Mapping[str, float]:
    """GPU -> its peak, FLOP/s: the cluster's where it says so, else the cards that we know."""
    if cluster is not None and cluster.gpu_tflops:
        return {cluster.name: cluster.gpu_tflops * 1e12}
    return PEAK_FLOPS


def plan_table(plan: Plan, console: Console) -> None:
    """Each job with why it runs or is reused, and what is expected of it; then stages, amounts and sums."""
    rows: list[GridRow] = []
    for step in plan.steps:
        label, key = Piece(step.job.label), Piece(step.job.short_key[:8])
        rows.append([Piece(step.action), label, key, Piece(_estimate(step, plan.cluster))])
        rows.append([Piece(), Piece(f"({step.why})"), Piece(), Piece()])
    _print(console, ("action", "job", "key", "estimate"), rows)
    console.print()
    _print(console, *_stages(plan))
    for line in [*memory_lines(plan), *work_lines(plan), *summary(plan)]:
        console.print("\n".join(wrapped(line, console.width)), markup=False, highlight=False)


def _print(console: Console, heads: Sequence[str], rows: Sequence[GridRow]) -> None:
    for line in laid_whole([Column(head, breaks=place > 0) for place, head in enumerate(heads)], rows, width=console.width):
        console.print(line)


def _stages(plan: Plan) -> tuple[tuple[str, ...], list[GridRow]]:
    devices = peaks(plan.cluster)
    rows: list[GridRow] = []
    for stage in stages(plan):
        cost = stage.cost
        gpus = any(step.job.resources.gpus for step in plan.steps if step.job.kind == stage.kind)
        hours = [f"{cost.hours_at(peak):.1f}" if gpus else "-" for peak in devices.values()]
        sizes = [f"{value:.2f}" if value else "-" for value in (cost.memory_gb, cost.disk_gb, cost.download_gb)]
        tokens = f"{cost.tokens:.2g}" if cost.tokens else "-"
        rows.append([Piece(text) for text in (stage.kind, str(stage.jobs), str(stage.to_run), tokens, *hours, *sizes)])
    return ("stage", "jobs", "to run", "tokens", *(f"{name}-h" for name in devices), "GB a process", "disk GB", "download GB"), rows


def memory_lines(plan: Plan) -> list[str]:
    """For each stage on GPUs the job whose process needs most, part by part."""
    found: dict[str, Step] = {}
    for step in plan.steps:
        if step.job.resources.gpus:
            largest = found.setdefault(step.job.kind, step)
            found[step.job.kind] = max(largest, step, key=lambda one: one.cost.memory_gb)
    card = f" of {plan.cluster.gpu_memory_gb:.0f}" if plan.cluster is not None else ""
    return [
        f"largest {kind}: {step.cost.memory_gb:.1f}{card} GB a card{memory_moment(step.cost)} ({memory_parts(step.cost)})"
        f"{_host(step)}, {step.job.label}"
        for kind, step in found.items()
    ]


def _host(step: Step) -> str:
    host = step.cost.memory.host
    return f" and {host:.1f} GB in the host" if host else ""


def work_lines(plan: Plan) -> list[str]:
    """What is trained for the paper's rows, what for ours, and what another seed adds."""
    work = work_of(plan)
    lines = [f"the paper's: {_amount(work.printed)}"] if work.printed.rows else []
    if work.added.rows or work.added.trainings:
        lines.append(f"added by us: {_amount(work.added)}; {_hours(added_cost(plan), plan)}")
    seed = further_seed(plan)
    if seed.flops:
        lines.append(f"each further seed: {_hours(seed, plan)}")
    return lines


def _amount(amount: Amount) -> str:
    return (
        f"{amount.rows} rows, {amount.trainings} different trainings of reward models, {amount.saes} SAEs in {amount.passes} passes "
        "over the text"
    )


def _hours(cost: Cost, plan: Plan) -> str:
    if not any(step.job.resources.gpus for step in plan.steps):
        return f"about {duration(cost.cpu_seconds)} on this machine"
    hours = ", ".join(f"{cost.hours_at(peak):.1f} h of one {name}" for name, peak in peaks(plan.cluster).items())
    return f"{hours} (at {UTILISATION:.0%} of the peak)"


def summary(plan: Plan) -> list[str]:
    """How much runs and is reused, and the estimate."""
    todo, cost = plan.todo, plan.cost
    lines = [f"{len(todo)} jobs to run, {len(plan.steps) - len(todo)} reused"]
    if todo:
        room = f"{cost.disk_gb:.2g} GB of artifacts" + (f", {cost.checkpoint_gb:.0f} GB of checkpoints" if cost.checkpoint_gb >= 1 else "")
        lines.append(
            f"estimate: {cost.flops:.2g} FLOP, {_hours(cost, plan)}; largest process {cost.memory_gb:.2g} GB; {room}"
            + _downloads(plan)
        )
    return lines


def _downloads(plan: Plan) -> str:
    """What comes from the hub, as far as the profile says how large it is; empty where nothing does."""
    coming = [step for step in brought_in_steps(plan.steps) if getattr(step.job.config, "origin", "") in ("hub", "url")]
    unknown = sum(not step.cost.download_gb for step in coming)
    if not coming:
        return ""
    size = f"{plan.cost.download_gb:{'.2g' if plan.cost.download_gb < 10 else '.0f'}} GB of downloads"
    more = f"{unknown} download{'s' if unknown != 1 else ''} of unknown size"
    return "; " + ", ".join([size] * (unknown < len(coming)) + [more] * bool(unknown))


# What a job of a kind does, for one and for several; a kind that is not here is called by its name.
DOES: Mapping[str, tuple[str, str]] = {
    "make_miniature": ("make the miniature's language", "make {} miniature languages"),
    "pretrain_backbone": ("pretrain 1 backbone", "pretrain {} backbones"),
    "fetch_weights": ("fetch 1 model", "fetch {} models"),
    "prepare_data": ("prepare 1 data set", "prepare {} data sets"),
    "train_sae": ("train 1 SAE", "train {} SAEs"),
    "train_reward": ("train 1 reward model", "train {} reward models"),
    "fit_safer": ("fit 1 SAFER score", "fit {} SAFER scores"),
    "score_states": ("score 1 head on kept states", "score {} heads on kept states"),
    "train_sparse_rm": ("fit 1 SparseRM head", "fit {} SparseRM heads"),
    "harvest_states": ("keep the states of 1 model", "keep the states of {} models"),
    "score_benchmark": ("score 1 benchmark", "score {} benchmarks"),
    "score_baseline": ("score 1 word counter", "score {} word counters"),
    "judge_benchmark": ("ask 1 judge", "ask {} judges"),
    "collect_contexts": ("collect the contexts of 1 model", "collect the contexts of {} models"),
    "explain_latents": ("explain the latents of 1 model", "explain the latents of {} models"),
    "steer_rewards": ("steer 1 model", "steer {} models"),
}


def announcement(plan: Plan) -> list[str]:
    """What a run will do and how long it is expected to take, said once before it starts."""
    todo, cost = plan.todo, plan.cost
    counts = Counter(job.kind for job in todo)
    does = ", ".join(_does(kind, count) for kind, count in counts.items())
    room = f"{cost.disk_gb:.2g} GB of artifacts" + (f", {cost.checkpoint_gb:.0f} GB of checkpoints" if cost.checkpoint_gb >= 1 else "")
    return [
        f"{len(todo)} jobs to run, {len(plan.steps) - len(todo)} reused: {does}",
        f"expected: {_hours(cost, plan)}; largest process {cost.memory_gb:.2g} GB; {room}{_downloads(plan)}",
    ]


def _does(kind: str, count: int) -> str:
    one, several = DOES.get(kind, (f"1 {kind}", f"{{}} {kind}"))
    return one if count == 1 else several.format(count)


def _estimate(step: Step, cluster: Cluster | None) -> str:
    cost, needs = step.cost, step.job.resources
    if step.job.kind in ("fetch_weights", "prepare_data") and cost.download_gb:
        return f"{cost.download_gb:.2f} GB to download"
    if not needs.gpus:
        return duration(cost.cpu_seconds)
    hours = " / ".join(f"{cost.hours_at(peak):.1f} {name}-h" for name, peak in peaks(cluster).items() if name != "H200")
    card = f" of {cluster.gpu_memory_gb:.0f}" if cluster is not None else ""
    cards = f" on each of {needs.gpus}" if needs.gpus > 1 else ""
    return f"{hours}, {cost.memory_gb:.0f}{card} GB{cards}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader wants."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def measured_table(found: Sequence[Compared], console: Console) -> None:
    """Predicted beside measured, one line for each kind of job."""
    rows: list[GridRow] = []
    for one in found:
        times = (f"{one.predicted_seconds:.1f}", f"{one.measured_seconds:.1f}", f"{one.ratio:.2f}" if one.ratio else "-")
        memory = (f"{one.predicted_gb:.2f}" if one.predicted_gb else "-", f"{one.measured_gb:.2f}")
        rows.append([Piece(text) for text in (one.kind, str(one.jobs), *times, *memory)])
    heads = ("kind", "jobs", "predicted s", "measured s", "measured / predicted", "predicted GB", "measured GB")
    _print(console, heads, rows)


def values(plan: Plan) -> dict[str, Any]:
    """A plan as plain values for JSON: every job, sums by stage, amounts, the cost of our additions and of one more seed."""
    work: Work = work_of(plan)
    return {
        "jobs": [_step_values(step, plan.cluster) for step in plan.steps],
        "stages": [
            {**stage.model_dump(exclude={"cost"}), "cost": _cost_values(stage.cost, plan.cluster)} for stage in stages(plan)
        ],
        "work": work.model_dump(),
        "added_by_us": _cost_values(added_cost(plan), plan.cluster),
        "each_further_seed": _cost_values(further_seed(plan), plan.cluster),
        "cluster": plan.cluster.name if plan.cluster else None,
        "gpu_memory_gb": plan.cluster.gpu_memory_gb if plan.cluster else None,
        "warnings": list(plan.warnings),
        "summary": summary(plan),
    }


def _step_values(step: Step, cluster: Cluster | None) -> dict[str, Any]:
    return {
        "kind": step.job.kind,
        "key": step.job.key,
        "label": step.job.label,
        "action": step.action,
        "why": step.why,
        "inputs": {name: needed.key for name, needed in step.job.inputs.items()},
        "config": step.job.config.model_dump(mode="json"),
        "resources": step.job.resources.model_dump(mode="json"),
        "cost": _cost_values(step.cost, cluster),
    }


def _cost_values(cost: Cost, cluster: Cluster | None) -> dict[str, Any]:
    hours = {name: cost.hours_at(peak) for name, peak in peaks(cluster).items()}
    return {**cost.model_dump(), "memory_gb": cost.memory_gb, "gpu_hours": hours}
