"""What `replicate related` adds to its tables: paired differences, what each row trains, SparseRM's own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Cell, Listing, Report, Row, Table
from replication.report.claims.paired_items import Credits, PairingError, differences, rewardbench2_credits
from replication.report.measurements import REWARDS_FILE, measured_training
from replication.report.published import PublishedRow, load_published
from replication.report.results.accuracy_rows import BASELINE_LABELS
from replication.report.statistics import PairedDifference, StatisticsError, two_way_bootstrap
from replication.settings.profiles import BenchmarkName
from sarm.data.preferences import DataError, ScoredPreference, read_jsonl
from sarm.job import Job
from sarm.metrics.credits import ScoringError
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS
from sarm.metrics.rmbench import RMBENCH_DOMAINS, style_credits
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts

DASH = "—"
BENCHMARKS: Mapping[BenchmarkName, str] = {"rewardbench2": "RewardBench 2", "rmbench": "RM-Bench", "evaluation": "held-out pairs"}
ALL = "all"


def with_related(report: Report, recipe: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """The report of scores, with SparseRM's printed numbers, the differences from one row, and the sizes and times of all."""
    added = _printed_table(recipe, store, command)
    listings = (*report.listings, paired_listing(recipe, store), size_listing(recipe, store))
    return report.model_copy(update={"tables": (*report.tables, added), "listings": listings})


def paired_listing(recipe: Recipe, store: ArtifactStore) -> Listing:
    """Every row minus the compared one, over the same items: points with the 95 % interval of a paired bootstrap."""
    reference, labels = recipe.setting.experiment.compared_with, _labels(recipe)
    names = [name for name in BENCHMARKS if name in recipe.setting.profile.benchmarks]
    arms = {name: _arms(recipe, store, name) for name in names}
    models = [*dict.fromkeys(one.row.name for one in recipe.trainings), *recipe.baselines]
    rows = [
        (labels[model], *(_difference(arms[name], model, reference) for name in names)) for model in models if model != reference
    ]
    return Listing(
        name="related-paired",
        title=f"Difference from {labels[reference]} over the same items, points",
        columns=("model", *(BENCHMARKS[name] for name in names)),
        rows=tuple(rows),
        numeric=tuple(BENCHMARKS[name] for name in names),
        notes=(
            "95 % intervals of a paired bootstrap, 10,000 resamples of items within subsets or domains (Ties: groups of prompts), "
            "and of seeds where there are several; with one seed an interval says nothing of other seeds.",
            "Each number is the unweighted mean over the subsets or domains that are there; intervals are not adjusted for their number.",
        ),
    )


def _labels(recipe: Recipe) -> Mapping[str, str]:
    """What each row and baseline is called in the tables."""
    experiment = recipe.setting.experiment
    printed = {row.name: row.label for row in load_published(experiment.published).rows}
    return {row.name: row.label or printed.get(row.name, row.name) for row in experiment.rows} | dict(BASELINE_LABELS)


def _arms(recipe: Recipe, store: ArtifactStore, name: BenchmarkName) -> dict[str, tuple[Credits, ...] | str]:
    """The credits of each model's seeds, or why there are none; a baseline has no seed and stands for each."""
    jobs: dict[str, list[Job | None]] = {}
    for training in recipe.trainings:
        jobs.setdefault(training.row.name, []).append(training.scores.get(name))
    seeds = len(recipe.setting.seeds)
    jobs |= {features: [scores.get(name)] * seeds for features, scores in recipe.baselines.items()}
    return {model: _credits(found, store, name) for model, found in jobs.items()}


def _credits(jobs: Sequence[Job | None], store: ArtifactStore, name: BenchmarkName) -> tuple[Credits, ...] | str:
    if not all(job is not None and store.has(job) for job in jobs):
        return "not measured"
    try:
        files = [store.path(job) / REWARDS_FILE for job in jobs if job is not None]
        return tuple(credits_of(list(read_jsonl(file, ScoredPreference)), name) for file in files)
    except (DataError, ScoringError) as error:
        return str(error)


def credits_of(items: Sequence[ScoredPreference], name: BenchmarkName) -> Credits:
    """Subset, domain or `all` -> item -> credit, for what the items hold. Raises ScoringError for items of another shape."""
    if name == "rewardbench2":
        return rewardbench2_credits(items, [subset for subset in REWARDBENCH2_SUBSETS if any(item.subset == subset for item in items)])
    found: dict[str, dict[str, float]] = {}
    for place, item in enumerate(items):
        key = f"{place}/{item.id}"
        if name == "rmbench":
            domain = next((one for one in RMBENCH_DOMAINS if item.subset.startswith(one)), "")
            wins = style_credits(item.chosen_rewards, item.rejected_rewards).wins
            if domain:
                found.setdefault(domain, {})[key] = sum(wins) / len(wins)
            continue
        if len(item.chosen_rewards) != 1 or len(item.rejected_rewards) != 1:
            raise ScoringError(f"item {item.id!r} is not a pair")
        better, worse = item.chosen_rewards[0], item.rejected_rewards[0]
        found.setdefault(ALL, {})[key] = 0.5 if better == worse else float(better > worse)
    return found


def _difference(arms: Mapping[str, tuple[Credits, ...] | str], model: str, reference: str) -> str:
    ours, theirs = arms.get(model, "left out by --rows"), arms.get(reference, f"{reference} was left out by --rows")
    for one in (ours, theirs):
        if isinstance(one, str):
            return f"{DASH} ({one})"
    try:
        found = two_way_bootstrap([differences(left, right) for left, right in zip(ours, theirs, strict=True)], seed=0)  # type: ignore[arg-type]
    except (PairingError, StatisticsError) as error:
        return f"{DASH} ({error})"
    return _interval(found)


def _interval(found: PairedDifference) -> str:
    return f"{found.estimate:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def size_listing(recipe: Recipe, store: ArtifactStore) -> Listing:
    """What each row trains, how much of the backbone that is, and how long its own job took."""
    rows: list[tuple[str, ...]] = []
    labels, backbone = _labels(recipe), 0
    found = [(one, _facts(one.model, store)) for one in recipe.trainings]
    for _, facts in found:
        backbone = int(facts.get("backbone_parameters", backbone))
    for training, facts in found:
        label = labels[training.row.name]
        name = f"{label}, seed {training.seed}" if len(recipe.setting.seeds) > 1 else label
        rows.append((name, *_size_fields(facts, backbone), _seconds(training.model, store)))
    return Listing(
        name="related-sizes",
        title="What each row trains",
        columns=("model", "trained numbers", "share of the backbone, %", "margin", "validation accuracy, %", "seconds"),
        rows=tuple(rows),
        numeric=("trained numbers", "share of the backbone, %", "margin", "validation accuracy, %", "seconds"),
        notes=(
            "The backbone is counted whole, with its embedding; on the backbones of SparseRM's paper its head is below 0.01 %, "
            "on a miniature the same head weighs more.",
            "Margin and epoch of a SparseRM head are chosen by accuracy on held-out training pairs, which is therefore optimistic.",
            *_harvests(recipe, store),
        ),
    )


def _facts(job: Job | None, store: ArtifactStore) -> Mapping[str, Any]:
    if job is None or not store.has(job):
        return {}
    path = store.path(job) / "training.json"
    return read_facts(path) if path.is_file() else {}


def _size_fields(facts: Mapping[str, Any], backbone: int) -> tuple[str, ...]:
    if "trainable_parameters" not in facts:
        return (DASH, DASH, DASH, DASH)
    trained = int(facts["trainable_parameters"])
    share = f"{100 * trained / backbone:.3g}" if backbone else DASH
    margin, accuracy = facts.get("margin"), facts.get("validation_accuracy")
    return (
        f"{trained:,}",
        share,
        f"{margin:g}" if margin is not None else DASH,
        f"{100 * accuracy:.1f}" if accuracy is not None else DASH,
    )


def _seconds(job: Job | None, store: ArtifactStore) -> str:
    return f"{store.manifest(job).seconds:.1f}" if job is not None and store.has(job) else DASH


def _harvests(recipe: Recipe, store: ArtifactStore) -> list[str]:
    """How long the states took that all heads share."""
    heads = [one for one in recipe.trainings if one.row.method != "reward" and one.model is not None]
    jobs = {job.key: job for one in heads for job in (one.model.inputs["states"], *(s.inputs["states"] for s in one.scores.values()))}  # type: ignore[union-attr]
    done = [job for job in jobs.values() if store.has(job)]
    parts = [f"{job.label} {_seconds(job, store)} s" for job in done]
    return [f"States are harvested once for all heads: {', '.join(parts)}."] if parts else []


def _printed_table(recipe: Recipe, store: ArtifactStore, command: str) -> Table:
    """SparseRM's printed numbers; ours beside them only where held-out pairs of the same source are there, and never judged."""
    published = load_published(recipe.setting.experiment.beside)
    rows = []
    for line in published.rows:
        cells = tuple(_printed_cell(recipe, store, command, line, column) for column in published.columns)
        rows.append(Row(name=line.name, label=line.label, group=line.group, origin="paper-baseline", note=line.note, cells=cells))
    return Table(
        name=published.name,
        title=published.title,
        columns=published.columns,
        rows=tuple(rows),
        notes=(f"{published.place}; {published.source}", f"Never judged: {published.not_comparable}"),
    )


def _printed_cell(recipe: Recipe, store: ArtifactStore, command: str, line: PublishedRow, column: str) -> Cell:
    published = load_published(recipe.setting.experiment.beside)
    printed, source = line.cells.get(column), published.held_out.get(column, "")
    ours = None
    if source and "evaluation" in recipe.setting.profile.benchmarks and recipe.of_row(line.name):
        ours = measured_training(recipe.of_row(line.name), "evaluation", store, command).measurement(source)
    if ours is None:
        reason = "of SparseRM's tasks; not at hand here" if printed else "not readable in our source"
        return Cell(column=column, published=printed, verdict="PUBLISHED ONLY", reason=reason)
    return Cell(column=column, ours=ours, published=printed, verdict="NOT COMPARABLE", reason=published.not_comparable)
