"""What each trained model is, from the conditions under which it was scored: facts that do not depend on how well it does.

A fault that changes a model often leaves its accuracies where they were: a block less, or all latents instead of the k largest. So a
diff of two runs compares these facts too, and exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from replication.recipes.jobs_needed import Recipe, Training
from replication.report.cells import Listing
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts, understood_facts

MODELS, UNKNOWN = "models", "—"
COLUMNS = ("model", "blocks", "parameters", "features of the head", "active at most", "read at")
NUMBERS = ("blocks", "parameters", "features", "features_active")
SAYS = "active at most: latents that one reward rests on, of at most 64 short conversations; read at: tokens whose hidden state is scored."


def models_listing(recipe: Recipe, store: ArtifactStore) -> Listing | None:
    """A row for each model that was scored; what seeds do not share stands side by side. None where no scoring notes such facts."""
    rows = [(row, *told) for row in dict.fromkeys(one.row.name for one in recipe.trainings) if (told := _told(recipe.of_row(row), store))]
    if not rows:
        return None
    return Listing(name=MODELS, title="What each model is", columns=COLUMNS, rows=tuple(rows), numeric=COLUMNS[1:5], notes=(SAYS,))


def _told(trainings: Sequence[Training], store: ArtifactStore) -> tuple[str, ...]:
    found = []
    for job in (job for one in trainings for job in one.scores.values()):
        path = store.path(job) / "conditions.json"
        facts = read_facts(path) if store.has(job) and path.is_file() else {}
        if "scored_tokens" in facts:
            with understood_facts(path):
                found.append(_texts(facts))
    return tuple(" / ".join(dict.fromkeys(texts)) for texts in zip(*found, strict=True))


def _texts(facts: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [UNKNOWN if facts.get(name) is None else f"{facts[name]:,}" for name in NUMBERS]
    return (*counts, ", ".join(sorted(facts["scored_tokens"])))
