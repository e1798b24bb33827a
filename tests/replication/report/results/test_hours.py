"""Table 4 of invented artifacts: what was measured, and why the rest was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fake_launcher import FakeLauncher, commit

from replication import pipeline
from replication.recipes.jobs_needed import Recipe, recipe
from replication.recipes.setting import Setting
from replication.report.results.hours import collect_hours
from replication.settings.experiments import EXPERIMENTS
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore


def with_resources(made: Recipe, **changed: int) -> Recipe:
    def asking(job: Job | None) -> Job | None:
        return replace(job, resources=job.resources.model_copy(update=changed)) if job is not None else None

    trainings = tuple(replace(one, sae=asking(one.sae), model=asking(one.model)) for one in made.trainings)
    return replace(made, trainings=trainings)


def test_hours_are_of_gpus_where_the_job_had_some(tmp_path: Path) -> None:
    """Ten hours on four GPUs are forty GPU-hours, and the memory is theirs."""
    made = recipe(Setting(experiment=EXPERIMENTS["table4"], profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"]))
    store = ArtifactStore(tmp_path)
    (model,) = [one.model for one in made.trainings if one.row.name == "sarm-4b"]
    assert model is not None
    commit(model, store, lambda output: None)
    path = store.path(model) / "manifest.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    known |= {"seconds": 36_000.0, "peak_memory_bytes": 2**30, "peak_gpu_memory_bytes": 5 * 2**30}
    known["resources"] |= {"gpus": 4, "processes": 4}
    path.write_text(json.dumps(known), encoding="utf-8")
    rows = [row for row in collect_hours(made, store, command="").listings[0].rows if row[1] == "sarm-4b, seed 0" and row[2] != "—"]
    assert [tuple(row[2:5]) for row in rows] == [("40.0000", "GPU-hours", "5.00")]


def test_a_stage_is_measured_or_says_whether_it_never_ran_or_was_damaged(tmp_path: Path) -> None:
    mini = load_profile("mini", environment={})
    setting = Setting(experiment=EXPERIMENTS["table4"], profile=mini, protocol=PROTOCOLS["paper"], rows="sarm-4b")
    store, made = ArtifactStore(tmp_path / "store"), recipe(setting)
    pipeline.replicate([setting], store, FakeLauncher(), watch=lambda event: None, rendered=tmp_path / "rendered", command="")

    def hours(where: ArtifactStore) -> list[tuple[str, ...]]:
        (listing,) = collect_hours(made, where, command="replicate table4").listings
        return [tuple(row) for row in listing.rows]

    assert [row[2:4] for row in hours(store)] == [("0.0000", "CPU-hours (wall time x processes)")] * 2
    # What a job ran with is in its manifest. Today's recipe may ask for other resources, since no key holds them.
    again = collect_hours(with_resources(made, gpus=8, processes=8), store, command="replicate table4").listings[0]
    assert [tuple(row) for row in again.rows] == hours(store)
    never = hours(ArtifactStore(tmp_path / "none"))
    assert all(row[2] == "—" and row[3].endswith(": never built here; run: replicate table4") for row in never)
    (training,) = made.trainings
    assert training.model is not None
    (store.path(training.model) / "rewards.jsonl").write_text("[]", encoding="utf-8")
    sae, model = hours(store)
    assert sae[2] == "0.0000" and model[2] == "—"
    assert model[3].startswith("reward model sarm-4b, seed 0: rewards.jsonl has ") and model[3].endswith("; run: replicate table4")
