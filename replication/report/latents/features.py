"""RQ1: what the latents with the largest head weights stand for, and whether the explanations tell their contexts from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replication.recipes.jobs_needed import Recipe, Training
from replication.report.answers import remarks
from replication.report.cells import Listing, Report
from replication.report.latents.detection import Accuracies, Difference, accuracies, difference
from replication.report.latents.polarity import FALSE_DISCOVERIES, Polarity, polarities, polarity_text, summary
from replication.report.provenance.framing import framed
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts
from sarm.store.json_lines import read_lines

SHORT = 90
DASH = "—"
Rows = Sequence[Mapping[str, Any]]
POLARITY = (
    "Polarity: items whose chosen replies fire the latent more often than the rejected ones, and less often, the side of its head weight "
    f"first; one-sided sign test, beyond chance at a false-discovery rate of {FALSE_DISCOVERIES:.0%} over all latents listed."
)


def collect_features(recipe: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """Groups of latents with their scores, then each latent with its explanation and its strongest context."""
    listings: list[Listing] = []
    explained = {training.seed: explanations(training, store) for training in recipe.trainings if training.row.encoder == "sae"}
    found = {seed: arms for seed, rows in explained.items() if (arms := accuracies(rows)) is not None}
    if found:
        listings.append(_difference(found))
    for training in recipe.trainings:
        if training.row.encoder != "sae":
            continue
        rows = explained[training.seed]
        job = training.explanation
        missing = training.missing or (store.absence(job, command=command) if job is not None else "") or "no latent was explained"
        listings.append(_groups(training, rows, missing=missing, answers=_answers(training, store)))
        if rows:
            listings.append(_latents(training, rows))
    # Loaded here: a plan must not wait for numpy and scipy.
    from replication.report.latents.planted import planted_truth  # noqa: PLC0415

    truth = planted_truth(recipe, store, explained, command=command)
    found_report = framed(recipe, store, listings=(*truth.listings, *listings))
    return found_report.model_copy(update={"planted": truth.numbers, "notes": (*found_report.notes, *truth.notes)})


def explanations(training: Training, store: ArtifactStore) -> Rows:
    """The lines of a training's `explanations.jsonl`; none where it has not run."""
    job = training.explanation
    if job is None or not store.has(job):
        return ()
    return [row for _, row in read_lines(store.path(job) / "explanations.jsonl")]


def _answers(training: Training, store: ArtifactStore) -> str:
    """How many answers could not be read, and what else a reader must know of them; empty where nobody was asked in words."""
    job = training.explanation
    path = store.path(job) / "summary.json" if job is not None else None
    if job is None or path is None or not store.has(job) or not path.is_file():
        return ""
    facts = read_facts(path)
    if facts.get("judge") == "planted":
        return ""
    unread = f"{facts['unread']:,} of {facts['questions']:,} answers could not be read" if "questions" in facts else ""
    said = "; ".join(one for one in (unread, *remarks(facts, path.parent)) if one)
    return said[:1].upper() + said[1:] + "." if said else ""


def _difference(found: Mapping[int, Accuracies]) -> Listing:
    """Detection against the frozen random encoder, for each seed and over all."""
    rows = []
    for seed, one in found.items():
        arms = [f"{100 * sum(arm) / len(arm):.2f} ({len(arm)})" for arm in one]
        rows.append((f"seed {seed}", *arms, _points(difference([one]))))
    if len(found) > 1:
        rows.append((f"{len(found)} seeds", DASH, DASH, _points(difference(list(found.values())))))
    columns = ("", "pretrained, % (latents)", "frozen random, % (latents)", "difference, points")
    return Listing(
        name="features-detection",
        title="Detection of held-out contexts from explanations, against a frozen random encoder",
        columns=columns,
        rows=tuple(rows),
        numeric=columns[1:],
        notes=("Balanced accuracy, mean over explained latents; 95 % intervals over seeds and latents (of one seed, over its latents).",),
    )


def _points(one: Difference) -> str:
    if not one.bounded:
        return f"{one.estimate:+.2f} (of one latent: no interval)"
    return f"{one.estimate:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _groups(training: Training, rows: Rows, *, missing: str, answers: str) -> Listing:
    """One line a group (positive, negative, and the same of the frozen random encoder); means over latents with 95 % intervals."""
    groups = dict.fromkeys(str(row["group"]) for row in rows)
    leanings = list(zip(rows, polarities(rows), strict=True))
    lines = [_group_line(name, [(row, one) for row, one in leanings if row["group"] == name]) for name in groups]
    return Listing(
        name=f"features-groups-seed{training.seed}",
        title=f"Explained latents of {training.row.name}, seed {training.seed}",
        columns=("group", "latents", "explained", "never fire", "mean score (1 to 5)", "detection, balanced accuracy", "polarity"),
        rows=tuple(lines) or ((DASH, "0", "0", "0", DASH, missing, DASH),),
        numeric=("latents", "explained", "never fire"),
        notes=(
            "positive and negative: sign of the head weight; control: the same of a frozen random encoder with a head of its own.",
            "Detection: which of a shuffled batch of held-out contexts, half of them hard negatives, match the explanation.",
            POLARITY,
            "The paper has no aggregate to compare with.",
            *([answers] if answers else []),
        ),
    )


def _group_line(name: str, found: Sequence[tuple[Mapping[str, Any], Polarity]]) -> tuple[str, ...]:
    rows = [row for row, _ in found]
    explained = [row for row in rows if row["status"] == "explained"]
    silent = sum(row["status"] == "never fires" for row in rows)
    scores = [float(row["score"]) for row in explained]
    accuracy = [100 * float(row["detection"]["balanced_accuracy"]) for row in explained if row["detection"]]
    counts = (str(len(rows)), str(len(explained)), str(silent))
    return (name, *counts, _mean(scores), _mean(accuracy, unit=" %"), summary([one for _, one in found]))


def _mean(values: Sequence[float], *, unit: str = "") -> str:
    """Mean with its 95 % interval over latents; a dash where there are none."""
    if not values:
        return DASH
    if len(values) == 1:
        return f"{values[0]:.2f}{unit} (one latent)"
    # Loaded here: a plan must not wait for statsmodels.
    from statsmodels.stats.weightstats import DescrStatsW  # noqa: PLC0415

    low, high = DescrStatsW(values).tconfint_mean()
    return f"{sum(values) / len(values):.2f}{unit} [{low:.2f}, {high:.2f}]"


def _latents(training: Training, rows: Rows) -> Listing:
    lines = []
    for row, leaning in zip(rows, polarities(rows), strict=True):
        detection = row["detection"]
        share = f"{100 * detection['balanced_accuracy']:.0f} %" if detection else DASH
        strongest = row["contexts"][0]["context"] if row["contexts"] else DASH
        said = row["explanation"] or row["status"]
        numbers = (str(row["latent"]), row["group"], f"{row['weight']:+.2e}", str(row["score"] or DASH), share, polarity_text(leaning))
        lines.append((*numbers, _cut(said), _cut(strongest)))
    return Listing(
        name=f"features-latents-seed{training.seed}",
        title=f"Latents of {training.row.name}, seed {training.seed}",
        columns=("latent", "group", "head weight", "score", "detection", "polarity", "explanation", "strongest context shown"),
        rows=tuple(lines),
        numeric=("latent", "head weight", "score", "detection"),
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHORT else flat[: SHORT - 1] + "…"
