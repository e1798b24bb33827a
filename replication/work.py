"""How much work a plan is: rows, distinct trainings and passes over the text, what our controls and further seeds add, sums by stage.

Everything is derived from the registry's rows through the plan's jobs; no number is written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from replication.cost import Cost
from replication.planning import Plan, ordered, passes_of, placed
from replication.recipes import Training, recipe
from replication.report.cells import Frozen
from sarm.job import Job

# Kinds in the order of the paper's pipeline are those of the plan; scoring, steering and explanations come after training.
TRAINING = ("train_sae", "train_reward")


class Amount(Frozen):
    """Rows and what is trained for them."""

    rows: int = Field(description="Rows that we train, over all tables; a model that stands in two tables counts twice.")
    trainings: int = Field(description="Different reward models.")
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
            rows=_rows(plan, printed=True), trainings=len(models), saes=len(saes), passes=sum(bool(group & saes) for group in passes)
        ),
        added=Amount(
            rows=_rows(plan, printed=False),
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
            own = training.row.control or one.setting.experiment.product != "scores"
            (added if own else printed).append(training)
    return printed, added


def _keys(trainings: Sequence[Training], name: str) -> set[str]:
    jobs = [getattr(training, name) for training in trainings]
    return {job.key for job in jobs if isinstance(job, Job)}


def _rows(plan: Plan, *, printed: bool) -> int:
    """Rows of tables of accuracies, ours or the paper's, that this profile can train; figures and listings repeat them."""
    tables = [one for one in plan.recipes if one.setting.experiment.product == "scores"]
    return sum(len({each.row.name for each in one.trainings if each.row.control != printed and not each.missing}) for one in tables)


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
    settings = [one.setting for one in plan.recipes]
    others = [recipe(replace(one, seeds=(max(one.seeds) + 1,))) for one in settings]
    jobs = placed(ordered([job for one in others for job in one.jobs]), plan.cluster)
    new = [job for job in jobs if job.key not in known]
    return sum(plan.estimator.costs(new, passes_of(new, plan.cluster)), Cost())
