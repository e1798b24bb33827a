"""Table 4: measured hours of the two training stages, from the manifests, beside the reported ones."""

from __future__ import annotations

from collections.abc import Sequence

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Listing, Report
from replication.report.provenance.framing import framed
from replication.report.published import load_published
from sarm.job import Job, Resources
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import Manifest

COLUMN = "GPU-hours"
STAGES = (("sae-training", "train_sae"), ("reward-modeling", "train_reward"))


def collect_hours(recipe: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """Hours of each stage for each row and seed; GPU-hours where GPUs were used, CPU-hours (processes x wall time) elsewhere."""
    published = load_published("table4")
    rows = []
    for stage, kind in STAGES:
        line = next(one for one in published.rows if one.name == stage)
        for training in recipe.trainings:
            job = training.sae if kind == "train_sae" else training.model
            what = f"{training.row.name}, seed {training.seed}"
            printed = f"{published.printed(stage, COLUMN)} on {line.size}"
            rows.append((line.label, what, *_measured(job, store, missing=training.missing, command=command), printed))
    listing = Listing(
        name="table4",
        title=recipe.setting.experiment.title,
        columns=("stage", "model", "ours, hours", "unit", "peak memory, GiB", "hardware", "reported GPU-hours"),
        rows=tuple(rows),
        numeric=("ours, hours", "peak memory, GiB"),
        notes=(
            "The paper does not say for which of its models the hours are, nor whether SAE training includes the forward passes.",
            "SAEs that share a pass over the text each count an equal part of it.",
            "Of a job that was stopped and went on, the hours are those of all its runs; in an artifact from before 2026-11-29 the last.",
            "Peak memory is of the first process, on its GPU where it had one, else on the host.",
            *_backbones(recipe, store),
        ),
    )
    return framed(recipe, store, listings=[listing])


def _measured(job: Job | None, store: ArtifactStore, *, missing: str, command: str) -> Sequence[str]:
    """Hours, unit, peak memory, hardware; dashes with the reason where the store has no such job or not its whole artifact."""
    if job is None:
        return ("—", missing or "no such stage", "—", "—")
    absent = store.absence(job, command=command)
    if absent:
        return ("—", absent, "—", "—")
    manifest = store.manifest(job)
    # What it ran with: today's recipe or cluster may ask for other resources, which are in no key.
    ran = Resources.model_validate(manifest.resources)
    unit = "GPU-hours" if ran.gpus else "CPU-hours (wall time x processes)"
    peak = manifest.peak_gpu_memory_bytes if ran.gpus else manifest.peak_memory_bytes
    hours = manifest.seconds * (ran.gpus or ran.processes) / 3600
    return (f"{hours:.4f}", unit, f"{peak / 2**30:.2f}", _hardware(manifest))


def _hardware(manifest: Manifest) -> str:
    machine = manifest.hardware
    gpus = ", ".join(dict.fromkeys(str(name) for name in machine.gpus))
    return gpus or f"{machine.cpus} CPU cores"


def _backbones(recipe: Recipe, store: ArtifactStore) -> list[str]:
    """What a miniature spends before the paper's two stages begin."""
    jobs = {training.model.inputs["backbone"] for training in recipe.trainings if training.model is not None}
    done = [job for job in jobs if job.kind == "pretrain_backbone" and store.has(job)]
    hours = {job.label: store.manifest(job).seconds / 3600 for job in done}
    return [f"{label}: {spent:.4f} hours of pretraining, which the paper's models had had." for label, spent in hours.items()]
