"""A store that holds explained latents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fake_launcher import commit

from replication.recipes.jobs_needed import Recipe, recipe
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore


def row(latent: int, weight: float, more: int, less: int, *, group: str = "positive", accuracy: float | None = 0.9) -> dict[str, Any]:
    return {
        "latent": latent, "group": group, "weight": weight, "fired": 9, "polarity": {"chosen_more": more, "rejected_more": less},
        "status": "explained", "explanation": "a cat", "score": 4, "asked": 1, "contexts": [{"context": "the cat sat.", "activation": 2.0}],
        "detection": None if accuracy is None else {"balanced_accuracy": accuracy}, "planted": None,
    }  # fmt: skip


def explained_store(
    folder: Path, *, seeds: tuple[int, ...] = (0, 1), summary: dict[str, Any] | None = None
) -> tuple[Recipe, ArtifactStore]:
    """A store in which only the explanations are there, with their summary if one is given: two latents of ours and one control a seed."""
    setting = Setting(experiment=EXPERIMENTS["features"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])
    made, store = recipe(replace(setting, seeds=seeds)), ArtifactStore(folder)
    for training in made.trainings:
        if training.explanation is not None:
            rows = [row(3, 0.4, 20, 2, accuracy=0.9), row(5, -0.4, 1, 19, group="negative", accuracy=0.8)]
            rows.append(row(7, 0.1, 10, 9, group="control-positive", accuracy=0.6))

            def fill(output: Path, rows: list[dict[str, Any]] = rows) -> None:
                (output / "explanations.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
                if summary is not None:
                    (output / "summary.json").write_text(json.dumps(summary))

            commit(training.explanation, store, fill)
    return made, store
