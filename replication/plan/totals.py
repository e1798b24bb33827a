"""How much work a plan is: rows, distinct trainings and passes over the text, what our controls and further seeds add, sums by stage.

Everything is derived from the registry's rows through the plan's jobs; no number is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from replication.frozen import Frozen
from replication.plan.cost import Cost
from replication.plan.steps import Plan, ordered, passes_of, placed
from replication.recipes.jobs_needed import Training, recipe
from replication.settings.experiments import Experiment, Row
from sarm.job import Job

# Kinds in the order of the paper's pipeline are those of the plan; scoring, steering and explanations come after training.
TRAINING = ("train_sae", "train_reward")


class Amount(Frozen):
    """Rows and what is trained for them."""

    rows: int = Field(description="Rows that we train: those printed table by table, a model in two tables twice; ours once each.")
    trainings: int = Field(description="Different reward models, heads on frozen states among them.")
    saes: int = Field(description="Different sparse autoencoders.")
    passes: int = Field(description="Passes over the text in which these are trained.")


class Work(Frozen):
    """The paper's own rows, and what we add to them."""

    seeds: int = Field(description="Seeds; trainings, SAEs and passes are over all of them.")
    printed: Amount = Field(description="Rows of the paper's tables of accuracies that are a SARM or an ablation of one.")
    added: Amount = Field(description="Controls and rows beyond the paper, without what the printed rows need anyway.")


class Stage(Frozen):
    """All jobs of one kind."""

    kind: str
    jobs: int
    to_run: int
    cost: Cost = Field(description="Of all jobs of this kind, whether in the store or not.")


def work_of(plan: Plan) -> Work:
    """The amounts of a plan."""
    printed, added = _trainings(plan)
    models, saes = _keys(printed, "model"), _keys(printed, "sae")
    passes = [{job.key for job in group} for group in plan.passes]
    more_saes = _keys(added, "sae") - saes
    return Work(
        seeds=max((len(one.setting.seeds) for one in plan.recipes), default=0),
        printed=Amount(
            rows=_printed_rows(plan), trainings=len(models), saes=len(saes), passes=sum(bool(group & saes) for group in passes)
        ),
        added=Amount(
            rows=_added_rows(plan),
            trainings=len(_keys(added, "model") - models),
            saes=len(more_saes),
            passes=sum(bool(group & more_saes) and not group & saes for group in passes),
        ),
    )


def _trainings(plan: Plan) -> tuple[list[Training], list[Training]]:
    """Of printed rows, and of all others."""
    printed: list[Training] = []
    added: list[Training] = []
    for one in plan.recipes:
        for training in one.trainings:
            (printed if _is_printed(one.setting.experiment, training.row) else added).append(training)
    return printed, added


def _keys(trainings: Sequence[Training], name: str) -> set[str]:
    jobs = [getattr(training, name) for training in trainings]
    return {job.key for job in jobs if isinstance(job, Job)}


def _is_printed(experiment: Experiment, row: Row) -> bool:
    # A comparison of our own repeats a row of the paper's tables.
    return experiment.product == "scores" and not experiment.compared_with and not row.control


def _printed_rows(plan: Plan) -> int:
    """Rows of the paper's tables of accuracies that this profile can train; other tables, figures and listings repeat them."""
    tables = [(one.setting.experiment, one.trainings) for one in plan.recipes]
    return sum(
        len({each.row.name for each in trainings if _is_printed(experiment, each.row) and not each.missing})
        for experiment, trainings in tables
    )


def _added_rows(plan: Plan) -> int:
    """Different rows of ours, of whatever table of accuracies, whose models no printed row trains."""
    printed, added = _trainings(plan)
    known = _keys(printed, "model")
    return len({each.row.name for each in added if each.model is not None and each.model.key not in known})


def stages(plan: Plan) -> list[Stage]:
    """The jobs kind by kind, in the order of the plan."""
    kinds = list(dict.fromkeys(step.job.kind for step in plan.steps))
    found = []
    for kind in kinds:
        steps = [step for step in plan.steps if step.job.kind == kind]
        cost = sum((step.cost for step in steps), Cost())
        found.append(Stage(kind=kind, jobs=len(steps), to_run=sum(step.action != "reuse" for step in steps), cost=cost))
    return found


def added_cost(plan: Plan) -> Cost:
    """What our controls and rows beyond the paper cost: all training and scoring that no printed row needs."""
    printed, _ = _trainings(plan)
    needed = {job.key for training in printed for job in (*training.scores.values(), training.model, training.sae) if job is not None}
    kinds = (*TRAINING, "score_benchmark")
    return sum((step.cost for step in plan.steps if step.job.kind in kinds and step.job.key not in needed), Cost())


def further_seed(plan: Plan) -> Cost:
    """What one more seed costs, of all experiments of the plan: the jobs that it does not share with the others."""
    known = {step.job.key for step in plan.steps}
    # Released models are evaluated as they are: they have no other seed.
    settings = [one.setting for one in plan.recipes if one.setting.source != "released"]
    others = [recipe(replace(one, seeds=(max(one.seeds) + 1,))) for one in settings]
    jobs = placed(ordered([job for one in others for job in one.jobs]), plan.cluster)
    new = [job for job in jobs if job.key not in known]
    return sum(plan.estimator.costs(new, passes_of(new, plan.cluster)), Cost())
