"""Per-item credits of two models over the same items, and their differences: what claims of ours rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from replication.recipes.jobs_needed import Recipe
from replication.report.measurements import REWARDS_FILE
from sarm.data.preferences import ScoredPreference, read_jsonl
from sarm.job import Job
from sarm.metrics.credits import ScoringError
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS, best_of_n_credits
from sarm.metrics.ties import TiesRow, ties_score
from sarm.store.artifacts import ArtifactStore

# Subset -> item, or for Ties group of prompts -> credit, a fraction.
Credits = Mapping[str, Mapping[str, float]]


class PairingError(ValueError):
    """Two models were not scored on the same items."""

    exit_code = 6


def credits_in_store(recipe: Recipe, store: ArtifactStore, rows: Sequence[str]) -> dict[str, tuple[Credits, ...]]:
    """Those of the rows that were scored with every seed of the recipe, each with the credits of its seeds in order.

    Raises DataError or ScoringError for rewards that cannot be used.
    """
    found = {}
    for row in rows:
        jobs = [training.scores.get("rewardbench2") for training in recipe.of_row(row)]
        present = [job for job in jobs if job is not None and store.has(job)]
        if jobs and len(present) == len(jobs):
            found[row] = tuple(_of_job(job, store) for job in present)
    return found


def _of_job(job: Job, store: ArtifactStore) -> Credits:
    return rewardbench2_credits(list(read_jsonl(store.path(job) / REWARDS_FILE, ScoredPreference)))


def rewardbench2_credits(items: Sequence[ScoredPreference], subsets: Sequence[str] = REWARDBENCH2_SUBSETS) -> Credits:
    """The credit of each item; of Ties the score of each group `ref:N` and `tied:N`, whose mean is the Ties score.

    Raises ScoringError for a subset that is not there and for a group without both prompts.
    """
    found: dict[str, dict[str, float]] = {}
    for subset in subsets:
        rows = [item for item in items if item.subset == subset]
        if not rows:
            raise ScoringError(f"no items of subset {subset}; a claim is about all six")
        if subset == "Ties":
            found[subset] = _groups(rows)
        else:
            credits = best_of_n_credits([item.chosen_rewards + item.rejected_rewards for item in rows])
            found[subset] = dict(zip(_names(rows), credits, strict=True))
    return found


def _names(rows: Sequence[ScoredPreference]) -> list[str]:
    """A name for each item: its id, with a count where the published ids repeat, so that no item stands for two."""
    seen: Counter[str] = Counter()
    names = []
    for item in rows:
        seen[item.id] += 1
        names.append(item.id if seen[item.id] == 1 else f"{item.id}#{seen[item.id]}")
    return names


def _groups(rows: Sequence[ScoredPreference]) -> dict[str, float]:
    groups: dict[str, list[TiesRow]] = {}
    for item in rows:
        groups.setdefault(item.id.partition(":")[2], []).append(TiesRow.of(item))
    for number, found in groups.items():
        if {row.id.partition(":")[0] == "ref" for row in found} != {True, False}:
            raise ScoringError(f"Ties group {number} lacks its ref or its tied prompt; score both")
    # Every part of the score is a mean over groups, so a group's own score is its share in it.
    return {number: ties_score(found).overall for number, found in groups.items()}


def differences(ours: Credits, theirs: Credits) -> dict[str, tuple[float, ...]]:
    """Ours minus theirs, item by item. Raises PairingError where the items differ."""
    for subset in {*ours, *theirs}:
        odd = sorted(set(ours.get(subset, {})) ^ set(theirs.get(subset, {})))
        if odd:
            raise PairingError(f"{subset}: {len(odd)} items were scored for one model only, for example {odd[0]!r}; no verdict")
    return {subset: tuple(credits[item] - theirs[subset][item] for item in credits) for subset, credits in ours.items()}
