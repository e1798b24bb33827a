"""RQ1: what the latents with the largest head weights stand for, and whether the explanations tell their contexts from others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from replication.recipes import Recipe, Training
from replication.report.cells import Listing, Report
from replication.report.results import framed
from sarm.artifacts import ArtifactStore

SHORT = 90
DASH = "—"
Rows = Sequence[Mapping[str, Any]]


def collect_features(recipe: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """Groups of latents with their scores, then each latent with its explanation and its strongest context."""
    listings: list[Listing] = []
    for training in recipe.trainings:
        if training.row.encoder != "sae":
            continue
        rows = _rows(training, store)
        listings.append(_groups(training, rows, missing=training.missing or f"not yet run: {command}"))
        if rows:
            listings.append(_latents(training, rows))
    return framed(recipe, store, listings=listings)


def _rows(training: Training, store: ArtifactStore) -> Rows:
    job = training.explanation
    if job is None or not store.has(job):
        return ()
    text = (store.path(job) / "explanations.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _groups(training: Training, rows: Rows, *, missing: str) -> Listing:
    """One line a group (positive, negative, and the same of the frozen random encoder); means over latents with 95 % intervals."""
    groups = dict.fromkeys(str(row["group"]) for row in rows)
    lines = [_group_line(name, [row for row in rows if row["group"] == name]) for name in groups]
    return Listing(
        name=f"features-groups-seed{training.seed}",
        title=f"Explained latents of {training.row.name}, seed {training.seed}",
        columns=("group", "latents", "explained", "never fire", "mean score (1 to 5)", "detection, balanced accuracy"),
        rows=tuple(lines) or ((DASH, "0", "0", "0", DASH, missing),),
        numeric=("latents", "explained", "never fire"),
        notes=(
            "positive and negative: sign of the head weight; control: the same of a frozen random encoder with a head of its own.",
            "Detection: which of a shuffled batch of held-out contexts, half of them hard negatives, match the explanation.",
            "The paper has no aggregate to compare with.",
        ),
    )


def _group_line(name: str, rows: Rows) -> tuple[str, ...]:
    explained = [row for row in rows if row["status"] == "explained"]
    silent = sum(row["status"] == "never fires" for row in rows)
    scores = [float(row["score"]) for row in explained]
    accuracy = [100 * float(row["detection"]["balanced_accuracy"]) for row in explained if row["detection"]]
    return (name, str(len(rows)), str(len(explained)), str(silent), _mean(scores), _mean(accuracy, unit=" %"))


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
    for row in rows:
        detection = row["detection"]
        share = f"{100 * detection['balanced_accuracy']:.0f} %" if detection else DASH
        strongest = row["contexts"][0]["context"] if row["contexts"] else DASH
        said = row["explanation"] or row["status"]
        numbers = (str(row["latent"]), row["group"], f"{row['weight']:+.2e}", str(row["score"] or DASH), share)
        lines.append((*numbers, _cut(said), _cut(strongest)))
    return Listing(
        name=f"features-latents-seed{training.seed}",
        title=f"Latents of {training.row.name}, seed {training.seed}",
        columns=("latent", "group", "head weight", "score", "detection", "explanation", "strongest context shown"),
        rows=tuple(lines),
        numeric=("latent", "head weight", "score", "detection"),
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHORT else flat[: SHORT - 1] + "…"
