"""The best epoch on the test set: every epoch is kept and scored, the choice is made in the report, and it is always marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_launcher import FakeLauncher, rewardbench2

from replication import pipeline
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report, Table
from replication.report.results.selection import MARK, REASON, selected
from replication.settings.experiments import TABLE1
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.config.score import ScoringConfig
from sarm.data.preferences import ScoredPreference
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import write_lines

ROW = "sarm-4b"


class EpochLauncher(FakeLauncher):
    """Rewards of RewardBench 2 get worse after the best epoch of a seed."""

    def _fill(self, job: Job, output: Path) -> None:
        super()._fill(job, output)
        config = job.config
        if isinstance(config, ScoringConfig) and config.benchmark == "rewardbench2":
            seed = int(job.label.rpartition(" ")[2])
            epoch = config.epoch or 3
            wrong = abs(epoch - (2 if seed == 0 else 3))
            write_lines(output / "rewards.jsonl", _with_wrong(wrong))


def _with_wrong(count: int) -> Iterator[ScoredPreference]:
    """The invented rewards with so many more Math items wrong."""
    for item in rewardbench2():
        bad = item.subset == "Math" and 0 < int(item.id) <= count
        yield item.model_copy(update={"chosen_rewards": (-1.0,)}) if bad else item


@pytest.fixture
def setting() -> Setting:
    mini = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"], rows=ROW)
    return replace(mini, seeds=(0, 1), overrides=parse_overrides(["reward.selection=test", "reward.epochs=3"]))


def run(setting: Setting, folder: Path) -> pipeline.Outcome:
    store = ArtifactStore(folder / "store")
    return pipeline.replicate(
        [setting], store, EpochLauncher(), watch=lambda event: None, rendered=folder / "rendered", command="replicate table1"
    )


def table(report: Report, name: str) -> Table:
    return next(one for one in report.tables if one.name == name)


def test_every_epoch_is_scored_and_the_last_is_the_model_itself(setting: Setting) -> None:
    (first, _) = recipe(setting).trainings
    assert set(first.epochs) == set(first.scores) == {"rewardbench2", "rmbench", "evaluation"}
    for name, jobs in first.epochs.items():
        assert [job.config.epoch for job in jobs if isinstance(job.config, ScoringConfig)] == [1, 2, 0] and jobs[-1] == first.scores[name]
        assert {job.inputs["model"].key for job in jobs} == {first.model.key if first.model else ""}
    assert len(first.ends) == 9
    (plain, _) = recipe(replace(setting, overrides={})).trainings
    assert plain.epochs == {} and len(plain.ends) == 3


def test_last_and_best_stand_side_by_side_and_the_best_is_marked(setting: Setting, tmp_path: Path) -> None:
    (report,) = run(setting, tmp_path).reports
    rows = {row.name: row for row in table(report, "table1").rows}
    last, best = ({cell.column: cell for cell in rows[name].cells} for name in (ROW, f"{ROW}-best"))
    assert last["Math"].ours is not None and best["Math"].ours is not None
    # Seed 0 is best after two of three epochs, seed 1 after the last.
    assert last["Math"].ours.per_seed == (50.0, 75.0) and best["Math"].ours.per_seed == (75.0, 75.0)
    assert MARK in rows[f"{ROW}-best"].label and rows[f"{ROW}-best"].origin == "control"
    assert {(cell.verdict, cell.reason) for cell in best.values() if cell.ours} == {("NOT COMPARABLE", REASON)}
    assert f"{ROW}-best: {MARK}, chosen by its own score (seed 0: epoch 2 of 3, seed 1: epoch 3 of 3); {ROW}: the last epoch" in table(
        report, "table1"
    ).notes
    assert f"{ROW}-best" in [row.name for row in table(report, "table1-rmbench").rows]
    assert f"{ROW}-best" in table(report, "table1-pairs").columns
    for suffix in (".md", ".tex", ".html"):
        (file,) = [path for path in run(setting, tmp_path).files if path.suffix == suffix]
        assert MARK in file.read_text(encoding="utf-8")


def test_equal_epochs_choose_the_earlier_one(setting: Setting, tmp_path: Path) -> None:
    run(setting, tmp_path)
    store, trainings = ArtifactStore(tmp_path / "store"), recipe(setting).trainings
    assert [one.epoch for one in selected(trainings, "rmbench", store)] == [1, 1]
    assert [one.epoch for one in selected(trainings, "rewardbench2", store)] == [2, 3]


def test_nothing_is_chosen_before_every_epoch_is_scored(setting: Setting, tmp_path: Path) -> None:
    found = recipe(setting)
    store = ArtifactStore(tmp_path / "store")
    FakeLauncher().launch([job for one in found.trainings for job in one.scores.values()], store, lambda event: None)
    assert selected(found.trainings, "rewardbench2", store) == []
    report = pipeline.report(found, store, command="replicate table1")
    best = next(row for row in table(report, "table1").rows if row.name == f"{ROW}-best")
    assert {cell.verdict for cell in best.cells} == {"MISSING"} and "after epoch 1" in best.cells[0].reason


def test_the_tables_are_rebuilt_from_the_rewards_of_the_chosen_epochs(setting: Setting, tmp_path: Path) -> None:
    outcome = run(setting, tmp_path)
    found, _ = pipeline.from_scores(outcome.results[0], tmp_path / "again")
    assert found.tables == outcome.reports[0].tables
