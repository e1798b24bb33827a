"""The epoch that is best on the test set itself, which the released driver allows: always marked, never compared with the paper.

Jobs store the rewards of every epoch; the choice is made here, for each seed and benchmark, by that benchmark's own score.
Source: S run_eval.py:103-120, which scores every checkpoint on both test sets without a validation set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from replication.recipes.jobs_needed import Training
from replication.report.measurements import ALL_PAIRS, Measured, Scored, measured_jobs
from replication.settings.experiments import Row
from replication.settings.profiles import BenchmarkName
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore

BEST = "-best"
MARK = "best epoch on this test set"
REASON = "chosen on the test set: the largest of several scores, which is no estimate of what the model scores elsewhere"
OVERALL = "Overall"


class Selected(NamedTuple):
    """One seed's best epoch of how many, and its rewards."""

    seed: int
    epoch: int
    epochs: int
    job: Job


def best_name(row: str) -> str:
    """What the best epoch of a row is called among the rows of a table."""
    return row + BEST


def selects_on_test(trainings: Sequence[Training]) -> bool:
    """Whether every epoch of these trainings was scored."""
    return any(training.epochs for training in trainings)


def best_row(row: Row, *, label: str, group: str) -> Row:
    """A row of a table for the best epoch of another."""
    changed = {"name": best_name(row.name), "label": f"{label} ({MARK})", "group": group, "control": True, "note": REASON}
    return row.model_copy(update=changed)


def selected(trainings: Sequence[Training], name: BenchmarkName, store: ArtifactStore) -> list[Selected]:
    """The best epoch of each training that has all its epochs scored; the earlier one of equals."""
    found = []
    for training in trainings:
        jobs = training.epochs.get(name, ())
        if jobs and all(store.has(job) for job in jobs):
            scored = [measured_jobs([job], name, store, "").per_seed for job in jobs]
            scores = [_score(one[0]) if one else float("-inf") for one in scored]
            best = scores.index(max(scores))
            found.append(Selected(training.seed, best + 1, len(jobs), jobs[best]))
    return found


def _score(one: Scored) -> float:
    """What is maximised: the benchmark's Overall, else the mean of what it has (a profile may lack subsets)."""
    whole = one.metrics.get(OVERALL) or one.metrics.get(ALL_PAIRS)
    values = [whole.value] if whole is not None else [metric.value for metric in one.metrics.values()]
    return sum(values) / len(values) if values else float("-inf")


def measured_best(trainings: Sequence[Training], name: BenchmarkName, store: ArtifactStore, command: str) -> Measured:
    """The measurements of the best epochs, over seeds; missing while any epoch of any seed is."""
    chosen = selected(trainings, name, store)
    if len(chosen) == len(trainings):
        return measured_jobs([one.job for one in chosen], name, store, command)
    jobs = [job for training in trainings for job in training.epochs.get(name, ()) if not store.has(job)]
    found = measured_jobs(jobs, name, store, command)
    return replace(found, per_seed=())


def chosen_epochs(trainings: Mapping[str, Sequence[Training]], name: BenchmarkName, store: ArtifactStore) -> list[str]:
    """Which epochs were chosen, for each row."""
    lines = []
    for row, of_row in trainings.items():
        chosen = selected(of_row, name, store)
        if chosen:
            epochs = ", ".join(f"seed {one.seed}: epoch {one.epoch} of {one.epochs}" for one in chosen)
            lines.append(f"{best_name(row)}: {MARK}, chosen by its own score ({epochs}); {row}: the last epoch")
    return lines
