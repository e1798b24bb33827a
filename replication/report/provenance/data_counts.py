"""What became of the rows of each data set that was read from files or a hub: kept, left out and why, and what was not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Listing
from sarm.job import topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts

# Where a kind of work says what became of what it read.
FACTS = {
    "prepare_data": "counts.json",
    "train_reward": "training.json",
    "score_benchmark": "conditions.json",
    "harvest_states": "conditions.json",
}
COLUMNS = ("data", "rows read", "kept", "left out", "also counted")


def data_counts(recipe: Recipe, store: ArtifactStore) -> Listing | None:
    """A row for each prepared data set in the store, and for each job whose chat template did not write all turns; None without any."""
    rows = []
    for job in topological_order(recipe.jobs):
        if job.kind not in FACTS or not store.has(job):
            continue
        path = store.path(job) / FACTS[job.kind]
        if not path.is_file():
            continue
        if job.kind == "prepare_data":
            rows.append(_row(job.label, read_facts(path, "read", "kept", "dropped")))
        elif unwritten := read_facts(path).get("turns_not_written"):
            told = ", ".join(f"{role} ({count})" for role, count in unwritten.items())
            rows.append((job.label, "", "", "", f"turns, with each reply, that the chat template leaves out or changes: {told}"))
    if not rows:
        return None
    return Listing(name="data", title="What was read", columns=COLUMNS, rows=tuple(rows), numeric=("rows read", "kept"))


def _row(label: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    left_out = ", ".join(f"{count} {reason}" for reason, count in facts["dropped"].items())
    unread = facts.get("columns_not_read", {})
    counted = [
        (facts.get("identical_completions", 0), "with two equal replies"),
        (facts.get("equal_pairs", 0), "equal to an earlier row"),
        (facts.get("repeated_ids", 0), "whose id was taken"),
    ]
    told = [f"{count} {what}" for count, what in counted if count]
    told += [f"columns not read: {', '.join(f'{name} ({count})' for name, count in unread.items())}"] if unread else []
    return label, str(facts["read"]), str(facts["kept"]), left_out or "none", "; ".join(told) or "nothing"
