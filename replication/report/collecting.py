"""Artifacts to a report, for each product of an experiment: accuracies, hours, a steered latent, explained latents."""

from __future__ import annotations

from pathlib import Path

from replication.recipes.jobs_needed import Recipe, Training
from replication.report.cells import Listing, Report
from replication.report.latents.features import collect_features
from replication.report.provenance.framing import framed
from replication.report.results.accuracies import collect
from replication.report.results.hours import collect_hours
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore

# Held-out pairs are split off by prompt, so that there is nothing to count.
STEERED = "steered by a file (--steer), not by the latent of the paper's rule"
BENCHMARK_TITLES = {"rewardbench2": "RewardBench 2", "rmbench": "RM-Bench"}


def collect_any(recipe: Recipe, store: ArtifactStore, *, command: str, figures: Path | None = None) -> Report:
    """The report of a recipe, as far as the store has it. `command` is what would fill its gaps; figures go into `figures`."""
    product = recipe.setting.experiment.product
    if product == "hours":
        return collect_hours(recipe, store, command=command)
    if product == "features":
        return collect_features(recipe, store, command=command)
    if product == "steering":
        return collect_steering(recipe, store, command=command, folder=figures)
    found = collect(recipe, store, command=command)
    found = found.model_copy(update={"listings": (*found.listings, *_overlaps(recipe, store))})
    if not recipe.setting.experiment.compared_with:
        return found
    # Loaded here: it resamples items, which no other table does.
    from replication.report.results.related import with_related  # noqa: PLC0415

    return with_related(found, recipe, store, command=command)


def collect_steering(recipe: Recipe, store: ArtifactStore, *, command: str, folder: Path | None) -> Report:
    """The report of Figure 3; with a folder the figures are drawn into it."""
    # Loaded here: numpy, scipy and matplotlib are not needed by any other experiment's plan or table.
    from replication.report.steering.figure import draw_figure3  # noqa: PLC0415
    from replication.report.steering.tables import SteeringRun, figure3_report  # noqa: PLC0415

    setting, frame = recipe.setting, framed(recipe, store)
    authors = Path(setting.authors) if setting.authors else None
    why = "; ".join(filter(None, (frame.why_not_comparable, STEERED if setting.steering is not None else "")))
    runs = [SteeringRun(one.seed, _folder(one, store), one.missing or _absence(one, store, command)) for one in recipe.trainings]
    found = figure3_report(
        runs,
        profile=frame.profile,
        protocol=frame.protocol,
        why_not_comparable=why,
        concepts=_concepts(recipe, store),
        authors=authors,
        extra=_overlaps(recipe, store),
        deviations=frame.deviations,
        provenance=frame.provenance,
        notes=frame.notes,
    )
    if folder is not None:
        draw_figure3(found, folder, authors=authors)
    return found.report.model_copy(update={name: getattr(frame, name) for name in ("inputs", "command", "circumstances")})


def _folder(training: Training, store: ArtifactStore) -> Path | None:
    job = training.steering
    return store.path(job) if job is not None and store.has(job) else None


def _absence(training: Training, store: ArtifactStore, command: str) -> str:
    return store.absence(training.steering, command=command) if training.steering is not None else ""


def _concepts(recipe: Recipe, store: ArtifactStore) -> Path | None:
    """The planted truth of a miniature; None for real data."""
    for training in recipe.trainings:
        target = training.steering.inputs["target"] if training.steering is not None else None
        if target is not None and target.kind == "make_miniature" and store.has(target):
            return store.path(target) / "concepts.json"
    return None


def _overlaps(recipe: Recipe, store: ArtifactStore) -> list[Listing]:
    """Near-duplicates between training pairs and the prompts of each benchmark, where the experiment asks for them."""
    if not recipe.setting.experiment.overlap:
        return []
    from replication.report.results.overlap import overlap_listing, overlap_of  # noqa: PLC0415 - as above

    listings = []
    # A released model's training pairs are not at hand.
    training = next((one for one in recipe.trainings if one.model is not None and "preferences" in one.model.inputs), None)
    if training is None or training.model is None:
        return []
    pairs = training.model.inputs["preferences"]
    for name, benchmark in _benchmarks(training).items():
        files = (store.path(pairs) / "train.jsonl", store.path(benchmark) / f"{name}.jsonl")
        if store.has(pairs) and store.has(benchmark) and all(file.is_file() for file in files):
            block = f"{recipe.setting.experiment.name}-overlap-{name}"
            listings.append(overlap_listing(overlap_of(*files), name=block, others="the training pairs", benchmark=BENCHMARK_TITLES[name]))
    return listings


def _benchmarks(training: Training) -> dict[str, Job]:
    """The benchmarks on which a training's model is judged."""
    scored = {str(name): job.inputs["benchmark"] for name, job in training.scores.items()}
    steered = {str(getattr(training.steering.config, "target", "")): training.steering.inputs["target"]} if training.steering else {}
    return {name: job for name, job in {**scored, **steered}.items() if name in BENCHMARK_TITLES}
