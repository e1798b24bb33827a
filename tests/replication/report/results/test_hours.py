"""Table 4 of invented artifacts: what was measured, and why the rest was not."""

from __future__ import annotations

from pathlib import Path

from fake_launcher import FakeLauncher

from replication import pipeline
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.results.hours import collect_hours
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore


def test_a_stage_is_measured_or_says_whether_it_never_ran_or_was_damaged(tmp_path: Path) -> None:
    mini = load_profile("mini", environment={})
    setting = Setting(experiment=EXPERIMENTS["table4"], profile=mini, protocol=PROTOCOLS["paper"], rows="sarm-4b")
    store, made = ArtifactStore(tmp_path / "store"), recipe(setting)
    pipeline.replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "rendered", command="")

    def hours(where: ArtifactStore) -> list[tuple[str, ...]]:
        (listing,) = collect_hours(made, where, command="replicate table4").listings
        return [tuple(row) for row in listing.rows]

    assert [row[2:4] for row in hours(store)] == [("0.0000", "CPU-hours (wall time x processes)")] * 2
    never = hours(ArtifactStore(tmp_path / "none"))
    assert all(row[2] == "—" and row[3].endswith(": never built here; run: replicate table4") for row in never)
    (training,) = made.trainings
    assert training.model is not None
    (store.path(training.model) / "rewards.jsonl").write_text("[]", encoding="utf-8")
    sae, model = hours(store)
    assert sae[2] == "0.0000" and model[2] == "—"
    assert model[3].startswith("reward model sarm-4b, seed 0: rewards.jsonl has ") and model[3].endswith("; run: replicate table4")
