"""What became of the rows of each data set that was read from files or a hub: kept, left out and why, and what was not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Listing
from sarm.job import topological_order
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts

COLUMNS = ("data", "rows read", "kept", "left out", "also counted")


def data_counts(recipe: Recipe, store: ArtifactStore) -> Listing | None:
    """A row for each prepared data set in the store, from its `counts.json`; None where there is none."""
    rows = []
    for job in topological_order(recipe.jobs):
        path = store.path(job) / "counts.json"
        if job.kind == "prepare_data" and store.has(job) and path.is_file():
            rows.append(_row(job.label, read_facts(path, "read", "kept", "dropped")))
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
