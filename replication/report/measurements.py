"""Rewards in the store to measurements, with the artifacts they rest on; or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replication.recipes.jobs_needed import Training
from replication.report.cells import Measurement
from replication.report.statistics import Bounds, normal_quantile, wilson
from replication.settings.profiles import BenchmarkName
from sarm.data.preferences import DataError, ScoredPreference, read_jsonl
from sarm.job import Job
from sarm.metrics.credits import Metric, ScoringError
from sarm.metrics.pairs import pairwise_scores
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores
from sarm.store.artifacts import ArtifactStore

REWARDS_FILE = "rewards.jsonl"
ALL_PAIRS = "All pairs"


@dataclass(frozen=True)
class Scored:
    """What one artifact of rewards gives: metrics (fractions) by name, and why others are missing."""

    metrics: Mapping[str, Metric]
    missing: Mapping[str, str] = field(default_factory=dict)
    artifact: str = ""
    truncated: int = 0


@dataclass(frozen=True)
class Measured:
    """One model on one benchmark over its seeds."""

    per_seed: tuple[Scored, ...]
    missing: str = ""

    def measurement(self, name: str) -> Measurement | None:
        """The metric in percent, averaged over seeds; None unless every seed has it."""
        metrics = [scored.metrics[name] for scored in self.per_seed if name in scored.metrics]
        if not metrics or len(metrics) != len(self.per_seed):
            return None
        values = [100 * metric.value for metric in metrics]
        errors = [100 * metric.standard_error for metric in metrics if metric.standard_error is not None]
        correct = [metric.correct for metric in metrics if metric.correct is not None]
        return Measurement(
            value=math.fsum(values) / len(values),
            n=metrics[0].n,
            correct=math.fsum(correct) / len(correct) if correct else None,
            standard_error=math.sqrt(math.fsum(error**2 for error in errors) / len(errors)) if errors else None,
            per_seed=tuple(values) if len(values) > 1 else (),
            artifacts=tuple(scored.artifact for scored in self.per_seed),
        )

    def reason(self, name: str, absent: Mapping[str, str]) -> str:
        """Why a metric is missing."""
        if self.missing:
            return self.missing
        if name in absent:
            return absent[name]
        return next((scored.missing[name] for scored in self.per_seed if name in scored.missing), "not measured")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of the first seed, in order."""
        return tuple(self.per_seed[0].metrics) if self.per_seed else ()

    @property
    def truncated(self) -> int:
        """Completions that were cut to the longest length, with one seed: all have the same completions and tokens."""
        return max((scored.truncated for scored in self.per_seed), default=0)


def items_interval(ours: Measurement, *, counted: bool) -> Bounds | None:
    """The 95 % interval over items alone, percent; None where nothing says how sure the number is.

    Wilson's where items have credits of 0 or 1 (but for ties), which `counted` says: an RM-Bench item has nine parts, so its error counts.
    """
    if ours.correct is not None and counted:
        return wilson(ours.correct, ours.n)
    if ours.standard_error is None:
        return None
    half = normal_quantile(0.975) * ours.standard_error
    return Bounds(low=ours.value - half, high=ours.value + half)


def measured_training(trainings: Sequence[Training], name: BenchmarkName, store: ArtifactStore, command: str) -> Measured:
    """One row on one benchmark, over its seeds. `command` is what would fill a gap."""
    missing = next((training.missing for training in trainings if training.missing), "")
    if missing:
        return Measured(per_seed=(), missing=missing)
    return measured_jobs([training.scores[name] for training in trainings], name, store, command)


def measured_jobs(jobs: Sequence[Job], name: BenchmarkName, store: ArtifactStore, command: str) -> Measured:
    """Jobs that score one model (one for each seed) on one benchmark."""
    for job in jobs:
        missing = store.absence(job, command=command)
        if missing:
            return Measured(per_seed=(), missing=missing)
    try:
        return Measured(per_seed=tuple(_scored(job, name, store) for job in jobs))
    except (DataError, ScoringError) as error:
        return Measured(per_seed=(), missing=str(error))


def scored_file(path: Path, name: BenchmarkName) -> Scored:
    """Metrics of one file of rewards in our own shape. Raises DataError or ScoringError."""
    items = list(read_jsonl(path, ScoredPreference))
    truncated = sum(item.truncated for item in items)
    if name == "evaluation":
        pairs = pairwise_scores(items)
        return Scored(metrics={ALL_PAIRS: pairs.overall, **pairs.by_source}, truncated=truncated)
    scores = rewardbench2_scores(items) if name == "rewardbench2" else rmbench_scores(items)
    return Scored(metrics=scores.metrics, missing=scores.missing, truncated=truncated)


def _scored(job: Job, name: BenchmarkName, store: ArtifactStore) -> Scored:
    found = scored_file(store.path(job) / REWARDS_FILE, name)
    artifact = f"{job.kind}/{job.short_key}"
    return Scored(metrics=found.metrics, missing=found.missing, artifact=artifact, truncated=found.truncated)
