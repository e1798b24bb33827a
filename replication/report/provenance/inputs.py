"""The models, data sets and benchmarks behind a report, with what tells one version of them from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Input
from sarm.job import Job, topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import FileRecord

DATA_KINDS = ("make_miniature", "prepare_data")
MODEL_KINDS = ("fetch_weights", "pretrain_backbone", "fetch_splitter")


def inputs_of(recipe: Recipe, store: ArtifactStore) -> tuple[Input, ...]:
    """Each model and data set of a recipe, then each benchmark; checksums only of what is in the store."""
    found = [_whole(job, store) for job in topological_order(recipe.jobs) if job.kind in (*DATA_KINDS, *MODEL_KINDS)]
    return tuple(dict.fromkeys([*found, *_benchmarks(recipe, store)]))


def _whole(job: Job, store: ArtifactStore) -> Input:
    return Input(
        id=_name(job), kind="dataset" if job.kind in DATA_KINDS else "model", revision=_revision(job), sha256=_digest(_files(job, store))
    )


def _benchmarks(recipe: Recipe, store: ArtifactStore) -> Iterator[Input]:
    """The file that each benchmark's items come from: the miniature makes several files at once."""
    for training in recipe.trainings:
        for name, scores in training.scores.items():
            job = scores.inputs["benchmark"]
            record = _files(job, store).get(f"{name}.jsonl")
            yield Input(id=name, kind="benchmark", revision=_revision(job), sha256=record.sha256 if record else "")


def _name(job: Job) -> str:
    """The hub's name where there is one; a label says what it is and holds no path."""
    return str(getattr(job.config, "repository", "")) or job.label


def _revision(job: Job) -> str:
    return str(getattr(job.config, "revision", "")) or job.key


def _files(job: Job, store: ArtifactStore) -> Mapping[str, FileRecord]:
    return store.manifest(job).files if store.has(job) else {}


def _digest(files: Mapping[str, FileRecord]) -> str:
    """One SHA-256 over names and checksums; empty without files."""
    lines = "".join(f"{record.sha256}  {name}\n" for name, record in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest() if lines else ""
