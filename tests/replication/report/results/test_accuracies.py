"""From artifacts to cells: each number with n, error and artifact; each gap with its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_launcher import FakeLauncher, commit

from replication.plan.steps import ordered
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report, Row, Table
from replication.report.results.accuracies import collect
from replication.report.verdicts.report import with_verdicts
from replication.settings.experiments import TABLE1
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.job import IntegrityProblem, Job
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate table1"


@pytest.fixture
def mini() -> Setting:
    return Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])


def collected(setting: Setting, store: ArtifactStore, launcher: FakeLauncher | None) -> Report:
    found = recipe(setting)
    if launcher:
        launcher.launch(ordered(found.jobs), store, lambda event: None)
    return collect(found, store, command=COMMAND)


def row(table: Table, name: str) -> Row:
    return next(one for one in table.rows if one.name == name)


def test_a_measured_cell_has_value_n_credits_error_and_its_artifact(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    report = collected(mini, store, FakeLauncher())
    cells = {cell.column: cell for cell in row(report.tables[0], "sarm-4b").cells}
    safety = cells["Safety"].ours
    assert safety is not None
    assert (safety.value, safety.n, safety.correct) == (75.0, 4, 3.0)
    assert safety.standard_error == pytest.approx(25.0)
    job = next(training for training in recipe(mini).trainings if training.row.name == "sarm-4b").scores["rewardbench2"]
    assert safety.artifacts == (f"score_benchmark/{job.short_key}",)
    assert cells["Safety"].published == "91.3" and cells["Safety"].reference is not None
    assert cells["Overall"].ours is not None and cells["Overall"].ours.n == 24


def test_the_miniature_is_never_comparable_and_baselines_are_published_only(mini: Setting, tmp_path: Path) -> None:
    report = with_verdicts(collected(mini, ArtifactStore(tmp_path), FakeLauncher()))
    assert not report.comparable and "miniature" in report.why_not_comparable
    verdicts = {one.name: {cell.verdict for cell in one.cells} for one in report.tables[0].rows}
    assert verdicts["sarm-1b"] == verdicts["length"] == {"NOT COMPARABLE"}
    assert verdicts["gpt-4.1"] == {"PUBLISHED ONLY"}
    assert [one.name for one in report.tables[0].rows if one.origin == "control"] == ["length", "bag-of-words"]


def test_absent_subsets_and_overall_are_dashes_with_a_reason(mini: Setting, tmp_path: Path) -> None:
    benchmark = mini.profile.benchmarks["rewardbench2"].model_copy(update={"absent": {"Math": "not at hand"}})
    profile = mini.profile.model_copy(update={"benchmarks": {**mini.profile.benchmarks, "rewardbench2": benchmark}})
    launcher = FakeLauncher(subsets=("Safety",))
    report = with_verdicts(collected(replace(mini, profile=profile), ArtifactStore(tmp_path), launcher))
    cells = {cell.column: cell for cell in row(report.tables[0], "sarm-1b").cells}
    assert cells["Safety"].ours is not None
    assert (cells["Math"].ours, cells["Math"].verdict, cells["Math"].reason) == (None, "MISSING", "not at hand")
    assert cells["Overall"].ours is None and "mean over 6 parts" in cells["Overall"].reason
    assert "Math: not at hand" in report.tables[0].notes


def test_an_empty_store_gives_dashes_that_name_the_command(mini: Setting, tmp_path: Path) -> None:
    report = collected(mini, ArtifactStore(tmp_path), None)
    cell = row(report.tables[0], "sarm-1b").cells[0]
    assert cell.ours is None and cell.verdict == "MISSING"
    assert "never built here" in cell.reason and COMMAND in cell.reason
    assert report.provenance == ()


def test_rewards_that_are_nan_make_a_dash_and_not_a_number(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    found = recipe(mini)
    job = found.trainings[0].scores["rewardbench2"]
    line = '{"id": "7", "subset": "Safety", "chosen_rewards": [NaN], "rejected_rewards": [0, 0, 0]}\n'
    commit(job, store, lambda output: (output / "rewards.jsonl").write_text(line, encoding="utf-8"))
    report = collect(found, store, command=COMMAND)
    cell = row(report.tables[0], "sarm-1b").cells[0]
    assert cell.ours is None and cell.reason


def test_seeds_are_averaged_and_kept(mini: Setting, tmp_path: Path) -> None:
    report = collected(replace(mini, seeds=(0, 1, 2)), ArtifactStore(tmp_path), FakeLauncher())
    ours = row(report.tables[0], "sarm-2b").cells[0].ours
    assert ours is not None and len(ours.per_seed) == 3 and len(set(ours.artifacts)) == 3
    assert report.seeds == (0, 1, 2)
    # Each seed reads the same completions, so a note counts them once.
    assert any("4 completions were cut" in note for note in report.tables[2].notes)


def test_rm_bench_and_held_out_pairs_have_tables_of_their_own(mini: Setting, tmp_path: Path) -> None:
    report = collected(mini, ArtifactStore(tmp_path), FakeLauncher())
    names = [table.name for table in report.tables]
    assert names == ["table1", "table1-rmbench", "table1-pairs"]
    hard = next(cell for cell in row(report.tables[1], "sarm-1b").cells if cell.column == "hard").ours
    assert hard is not None and hard.value == 100.0
    pairs = report.tables[2]
    assert pairs.columns == ("sarm-1b", "sarm-2b", "sarm-4b", "length", "bag-of-words")
    values = {one.label: (one.cells[0].ours.value, one.cells[0].ours.n) for one in pairs.rows if one.cells[0].ours}
    assert values == {"All pairs (8 pairs)": (75.0, 8), "one (4 pairs)": (100.0, 4), "two (4 pairs)": (50.0, 4)}
    assert any("4 completions were cut" in note for note in pairs.notes)


def test_deviations_replaced_values_and_provenance_are_listed(mini: Setting, tmp_path: Path) -> None:
    report = collected(mini, ArtifactStore(tmp_path), FakeLauncher())
    assert len(report.deviations) == len(mini.protocol.deviations)
    assert any("reward.learning_rate: 4e-06 -> " in note for note in report.notes)
    assert len(report.provenance) == len(ordered(recipe(mini).jobs))


def test_rows_left_out_say_so(mini: Setting, tmp_path: Path) -> None:
    report = collected(replace(mini, rows="sarm-1b"), ArtifactStore(tmp_path), FakeLauncher())
    assert row(report.tables[0], "sarm-4b").cells[0].reason == "left out by --rows"


def test_inexact_counterparts_are_noted_in_their_row(mini: Setting, tmp_path: Path) -> None:
    from replication.settings.experiments import EXPERIMENTS

    report = collected(replace(mini, experiment=EXPERIMENTS["table3"]), ArtifactStore(tmp_path), None)
    noted = {one.name for one in report.tables[0].rows if "counterpart" in one.note}
    assert noted == {"layer-10", "k-196"}


def test_the_paper_profile_is_comparable_once_pinned_and_unchanged(tmp_path: Path) -> None:
    from replication.report.provenance.comparable import why_not_comparable

    paper = Setting(experiment=TABLE1, profile=load_profile("paper", environment={}), protocol=PROTOCOLS["paper"])
    assert "not pinned" in why_not_comparable(paper)
    pins = {repository: "0" * 40 for repository, _ in paper.profile.unpinned()}
    pinned = replace(paper, profile=load_profile("paper", environment={}, pins=pins))
    assert why_not_comparable(pinned) == ""
    assert "reward.epochs" in why_not_comparable(replace(pinned, overrides=parse_overrides(["reward.epochs=1"])))
    assert why_not_comparable(replace(pinned, overrides=parse_overrides(["resources.train_reward.gpus=8"]))) == ""


class NotingLauncher(FakeLauncher):
    """Its scorings note what a model is: seed 1 of SARM-1B has a block less, and nothing notes SARM-2B."""

    def _fill(self, job: Job, output: Path) -> None:
        super()._fill(job, output)
        if job.kind == "score_benchmark" and "sarm-2b" not in job.label:
            blocks = 3 if "sarm-1b" in job.label and job.label.endswith("seed 1") else 4
            facts = {"blocks": blocks, "parameters": 1234567, "features": 2048, "features_active": None if "4b" in job.label else 6}
            (output / "conditions.json").write_text(json.dumps({**facts, "scored_tokens": {"<|eot_id|>": 9, ".": 1}}))


def test_what_each_model_is_stands_below_the_tables(mini: Setting, tmp_path: Path) -> None:
    report = collected(replace(mini, seeds=(0, 1)), ArtifactStore(tmp_path), NotingLauncher())
    (models,) = (one for one in report.listings if one.name == "models")
    assert models.rows == (
        ("sarm-1b", "4 / 3", "1,234,567", "2,048", "6", "., <|eot_id|>"),
        ("sarm-4b", "4", "1,234,567", "2,048", "—", "., <|eot_id|>"),
    )
    assert not [one for one in collected(mini, ArtifactStore(tmp_path / "old"), FakeLauncher()).listings if one.name == "models"]


class WrongLauncher(FakeLauncher):
    """Its scorings note a list where a number belongs."""

    def _fill(self, job: Job, output: Path) -> None:
        super()._fill(job, output)
        if job.kind == "score_benchmark":
            (output / "conditions.json").write_text(json.dumps({"blocks": [4], "scored_tokens": {}}))


def test_facts_that_cannot_be_understood_are_told_with_their_file(mini: Setting, tmp_path: Path) -> None:
    with pytest.raises(IntegrityProblem, match=r"/conditions\.json: a value cannot be understood .* --fresh"):
        collected(mini, ArtifactStore(tmp_path), WrongLauncher())
