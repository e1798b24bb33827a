"""`replicate related`: what it plans, that all rows see the same pairs and benchmarks, what its report adds, and one tiny run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from fake_launcher import FakeLauncher, commit, rewardbench2
from folders import ROOT
from tiny_profile import write_profile

from replication.pipeline import from_scores, replicate
from replication.plan.steps import ordered
from replication.recipes.jobs_needed import Recipe, recipe
from replication.recipes.setting import Setting
from replication.report.cells import Listing, Report, Table
from replication.report.collecting import collect_any
from replication.report.results.related import credits_of, paired_listing, size_listing
from replication.report.verdicts.report import with_verdicts
from replication.settings.experiments import RELATED, TABLE1, TABLE2
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.config.related import HarvestConfig, SparseRMConfig
from sarm.config.score import BaselineConfig
from sarm.config.train import RewardTrainingConfig
from sarm.data.preferences import ScoredPreference
from sarm.job import Job
from sarm.metrics.credits import ScoringError
from sarm.metrics.pairs import pairwise_scores
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import write_lines

COMMAND = "replicate related"


@pytest.fixture
def mini() -> Setting:
    return Setting(experiment=RELATED, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])


def jobs_of(setting: Setting) -> list[Job]:
    return ordered(recipe(setting).jobs)


def table(report: Report, name: str) -> Table:
    return next(one for one in report.tables if one.name == name)


def listing(report: Report, name: str) -> Listing:
    return next(one for one in report.listings if one.name == name)


def scored(subset: str, name: str, *, right: bool) -> ScoredPreference:
    return ScoredPreference(id=name, subset=subset, chosen_rewards=(1.0 if right else -1.0,), rejected_rewards=(0.0, 0.0, 0.0))


def test_states_are_harvested_once_and_sae_sarm_and_scalar_models_are_those_of_the_tables(mini: Setting) -> None:
    kinds = [job.kind for job in jobs_of(mini)]
    assert kinds.count("harvest_states") == 4, "training pairs and three benchmarks"
    assert kinds.count("train_sae") == kinds.count("fit_safer") == 1
    assert (kinds.count("train_sparse_rm"), kinds.count("score_states")) == (9, 30)
    others = {job.key for one in (TABLE1, TABLE2) for job in jobs_of(replace(mini, experiment=one))}
    assert all(job.key in others for job in jobs_of(mini) if job.kind in ("train_sae", "train_reward", "score_benchmark"))


def test_every_row_sees_the_same_pairs(mini: Setting) -> None:
    jobs = jobs_of(replace(mini, overrides=parse_overrides(["reward.max_pairs=50"])))
    for config in (job.config for job in jobs):
        if isinstance(config, RewardTrainingConfig | BaselineConfig) or (isinstance(config, HarvestConfig) and config.items == "train"):
            assert config.max_pairs == 50
    table1 = replace(mini, experiment=TABLE1, overrides=parse_overrides(["reward.max_pairs=50"]))
    alone = [job.config for job in jobs_of(table1) if isinstance(job.config, BaselineConfig)]
    assert {config.max_pairs for config in alone} == {0}, "elsewhere a baseline takes all pairs, as before"


def test_states_are_read_under_the_conditions_of_training_and_of_scoring(mini: Setting) -> None:
    changed = replace(mini, overrides=parse_overrides(["reward.max_length=99", "scoring.max_length=77", "scoring.bos=double"]))
    configs = {job.config.items: job.config for job in jobs_of(changed) if isinstance(job.config, HarvestConfig)}
    assert (configs["train"].max_length, configs["train"].bos) == (99, "single")
    assert (configs["rmbench"].max_length, configs["rmbench"].bos) == (77, "double")


def test_heads_on_states_of_another_pooling_are_scored_from_the_cache_alone(mini: Setting) -> None:
    for pooling, whole in (("end_of_turn", {"sparse-rm", "safer"}), ("mean", set())):
        found = recipe(replace(mini, overrides=parse_overrides([f"harvest.pooling={pooling}"])))
        configs = {one.row.name: one.model.config for one in found.trainings if one.model is not None}
        assert {name for name, config in configs.items() if getattr(config, "whole", False)} == whole


def test_the_harness_s_formatting_is_refused_for_rows_on_cached_states(mini: Setting) -> None:
    overrides = parse_overrides(["scoring.formatting=harness"])
    with pytest.raises(UsageProblems, match=r"row sparse-rm: scoring.formatting = 'harness'.*--rows"):
        recipe(replace(mini, overrides=overrides))
    assert recipe(replace(mini, overrides=overrides, rows="sarm-4b")).trainings


def test_controls_differ_from_sparse_rm_in_what_they_are_named_after(mini: Setting) -> None:
    configs = {one.row.name: one.model.config for one in recipe(mini).trainings if one.model is not None}
    plain = configs["sparse-rm"]
    assert isinstance(plain, SparseRMConfig) and plain.per_side == 8
    expected = {
        "sparse-rm-1k": {"max_pairs": 1000},
        "sparse-rm-linear": {"head": "linear"},
        "sparse-rm-bt": {"loss": "bradley_terry"},
        "sparse-rm-bce": {"loss": "bce"},
        "sparse-rm-activations": {"inputs": "activations"},
        "sparse-rm-random": {"directions": "random"},
        "sparse-rm-random-columns": {"directions": "random_columns"},
        "sparse-rm-dense": {"inputs": "dense"},
    }
    for name, changes in expected.items():
        assert configs[name] == plain.model_copy(update={**changes, "whole": False})
    assert set(expected) == {row.name for row in RELATED.rows if row.method == "sparse_rm"} - {"sparse-rm"}


def test_the_paper_s_own_size_is_what_a_profile_gets_that_says_nothing() -> None:
    paper = load_profile("paper", environment={})
    found = recipe(Setting(experiment=RELATED, profile=paper, protocol=PROTOCOLS["paper"], rows="sparse-rm"))
    config = found.trainings[0].model
    assert config is not None and isinstance(config.config, SparseRMConfig)
    assert (config.config.per_side, config.config.width, config.config.loss) == (128, 512, "margin")


class Launcher(FakeLauncher):
    """Also writes what the jobs of heads write beside their weights."""

    def _fill(self, job: Job, output: Path) -> None:
        super()._fill(job, output)
        if job.kind in ("train_sparse_rm", "fit_safer"):
            facts = {"trainable_parameters": 132096, "backbone_parameters": 13209600, "margin": 0.5, "validation_accuracy": 0.61}
            (output / "training.json").write_text(json.dumps(facts))


def collected(setting: Setting, folder: Path) -> Report:
    store = ArtifactStore(folder)
    found = recipe(setting)
    Launcher().launch(ordered(found.jobs), store, lambda event: None)
    return with_verdicts(collect_any(found, store, command=COMMAND), reference=RELATED.published)


def test_the_report_has_one_line_a_model_in_every_table_and_only_sarm_has_a_printed_number(mini: Setting, tmp_path: Path) -> None:
    report = collected(mini, tmp_path)
    assert [one.name for one in report.tables] == ["table1", "related-rmbench", "related-held-out", "related"]
    names = [row.name for row in RELATED.rows] + ["length", "bag-of-words"]
    for one in report.tables[:3]:
        assert [row.name for row in one.rows] == names
        assert all(cell.ours is not None for row in one.rows for cell in row.cells)
    printed = {row.name for row in report.tables[0].rows if any(cell.published for cell in row.cells)}
    assert printed == {"sarm-4b"}
    assert {cell.verdict for one in report.tables[:3] for row in one.rows for cell in row.cells} == {"NOT COMPARABLE"}
    notes = {row.name: row.note for row in report.tables[0].rows}
    assert "the same pairs" in notes["length"] and "SAE of SARM-4B" in notes["sparse-rm"]


def test_sparse_rm_s_printed_numbers_are_quoted_and_never_judged(mini: Setting, tmp_path: Path) -> None:
    quoted = table(collected(mini, tmp_path), "related")
    cells = {(row.name, cell.column): cell for row in quoted.rows for cell in row.cells}
    assert cells["sparse-rm", "TruthfulQA"].published == "93.6" and cells["sparse-rm-dense", "PKU-SafeRLHF"].published == "94.7"
    assert cells["sparse-rm-dense", "TruthfulQA"].published is None
    assert {cell.verdict for cell in cells.values()} == {"PUBLISHED ONLY"}


def test_a_source_of_the_same_name_stands_beside_the_printed_number_and_even_a_comparable_profile_does_not_judge_it(
    mini: Setting, tmp_path: Path
) -> None:
    profile = mini.profile.model_copy(update={"comparable": True, "why_not_comparable": ""})
    store, found = ArtifactStore(tmp_path), recipe(replace(mini, profile=profile))
    job = found.of_row("sparse-rm")[0].scores["evaluation"]
    pairs = [ScoredPreference(id=str(n), source="truthfulqa", chosen_rewards=(float(n),), rejected_rewards=(1.5,)) for n in range(4)]
    commit(job, store, lambda output: write_lines(output / "rewards.jsonl", pairs))
    report = collect_any(found, store, command=COMMAND).model_copy(update={"comparable": True, "why_not_comparable": ""})
    report = with_verdicts(report, reference=RELATED.published)
    line = next(row for row in table(report, "related").rows if row.name == "sparse-rm")
    cell = next(cell for cell in line.cells if cell.column == "TruthfulQA")
    assert cell.ours is not None and (cell.ours.value, cell.published) == (50.0, "93.6")
    assert cell.verdict == "NOT COMPARABLE" and "Gemma-2-9B-it" in cell.reason


def test_the_tables_are_rebuilt_from_the_rewards_alone(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    outcome = replicate([mini], store, Launcher(), watch=lambda event: None, rendered=tmp_path / "one", command=COMMAND)
    again, _ = from_scores(outcome.results[0], tmp_path / "two")
    assert [one.name for one in again.tables] == [one.name for one in outcome.reports[0].tables]
    for one, other in zip(again.tables, outcome.reports[0].tables, strict=True):
        values = [[cell.ours.value if cell.ours else None for row in each.rows for cell in row.cells] for each in (one, other)]
        assert values[0] == values[1]


def test_sizes_and_times_are_those_that_the_jobs_wrote(mini: Setting, tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in listing(collected(mini, tmp_path), "related-sizes").rows}
    assert rows["SparseRM"] == ("132,096", "1", "0.5", "61.0", "0.1")
    assert len(rows) == len(RELATED.rows)


def test_an_empty_store_gives_dashes(mini: Setting, tmp_path: Path) -> None:
    found, store = recipe(mini), ArtifactStore(tmp_path)
    assert all(row[1].startswith("— (") for row in paired_listing(found, store).rows)
    assert all(set(row[1:]) == {"—"} for row in size_listing(found, store).rows)


def rewards_of(right: Mapping[str, int], *, of: int = 4) -> Iterator[ScoredPreference]:
    """Items of each subset, the first `right` of them ranked right."""
    for subset, count in right.items():
        for number in range(of):
            yield scored(subset, str(number), right=number < count)


def committed(found: Recipe, store: ArtifactStore, row: str, items: list[ScoredPreference]) -> None:
    job = found.of_row(row)[0].scores["rewardbench2"]
    commit(job, store, lambda output: write_lines(output / "rewards.jsonl", items))


def test_a_paired_difference_is_the_row_minus_sarm_over_the_subsets_that_are_there(mini: Setting, tmp_path: Path) -> None:
    found, store = recipe(mini), ArtifactStore(tmp_path)
    committed(found, store, "sarm-4b", list(rewards_of({"Safety": 4, "Focus": 2})))
    committed(found, store, "sparse-rm", list(rewards_of({"Safety": 3, "Focus": 0})))
    committed(found, store, "safer", list(rewards_of({"Safety": 4, "Focus": 2})))
    committed(found, store, "sparse-rm-bt", list(rewards_of({"Safety": 4})))
    rows = {row[0]: row[1] for row in paired_listing(found, store).rows}
    # Safety -25, Focus -50: the mean of the two is -37.5.
    assert rows["SparseRM"].startswith("-37.5 [") and rows["SAFER score"] == "+0.0 [+0.0, +0.0]"
    low, high = (float(part) for part in rows["SparseRM"].split("[")[1].rstrip("]").split(", "))
    assert low < -37.5 < high <= 0
    assert "items were scored for one model only" in rows["SparseRM, BT loss"]
    assert rows["Dense head"] == "— (not measured)"


def test_credits_add_up_to_the_scores_of_each_benchmark() -> None:
    items = list(rewardbench2())
    found, scores = credits_of(items, "rewardbench2"), rewardbench2_scores(items)
    for subset, credits in found.items():
        assert sum(credits.values()) / len(credits) == pytest.approx(scores.metrics[subset].value)
    styles = [
        ScoredPreference(id=str(n % 2), subset=subset, chosen_rewards=(1.0, 2.0, n), rejected_rewards=(0.5, 1.5, 2.5))
        for n, subset in enumerate(("chat", "chat", "code", "math", "safety-refuse", "safety-response"))
    ]
    by_domain, metrics = credits_of(styles, "rmbench"), rmbench_scores(styles).metrics
    assert len(by_domain["safety"]) == 2 and len(by_domain["chat"]) == 2
    for domain, credits in by_domain.items():
        assert sum(credits.values()) / len(credits) == pytest.approx(metrics[domain].value)
    pairs = [ScoredPreference(id="same", chosen_rewards=(x,), rejected_rewards=(1.0,)) for x in (0.0, 1.0, 2.0)]
    alone = credits_of(pairs, "evaluation")["all"]
    assert list(alone.values()) == [0.0, 0.5, 1.0] and sum(alone.values()) / 3 == pairwise_scores(pairs).overall.value
    with pytest.raises(ScoringError, match="is not a pair"):
        credits_of(items[:1], "evaluation")


def test_with_several_seeds_a_baseline_stands_for_each(mini: Setting, tmp_path: Path) -> None:
    report = collected(replace(mini, seeds=(0, 1)), tmp_path)
    rows = {row[0]: row[1:] for row in listing(report, "related-paired").rows}
    assert set(rows["Length only"]) == {"+0.0 [+0.0, +0.0]"}
    assert sum(row[0].startswith("SparseRM, seed") for row in listing(report, "related-sizes").rows) == 2


@pytest.mark.slow
def test_a_tiny_profile_runs_from_nothing_to_a_rendered_report_and_a_second_run_starts_no_job(tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    command = [sys.executable, "-m", "replication.cli", "related", "--profile", str(profile), "--store", str(tmp_path / "store")]
    command += ["--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = [
        subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
        for _ in range(2)
    ]
    assert done[0].returncode == done[1].returncode == 0, done[0].stderr[-3000:]
    assert "all jobs were reused" in done[1].stderr and "all jobs were reused" not in done[0].stderr
    page = (tmp_path / "out" / "tiny" / "related.md").read_text()
    for row in RELATED.rows:
        assert not row.label or row.label in page
    results = json.loads((tmp_path / "out" / "tiny" / "related.results.json").read_text())
    measured = {(one["model"], one["benchmark"]) for one in results["metrics"]}
    assert measured >= {(row.name, name) for row in RELATED.rows for name in ("rewardbench2", "rmbench", "evaluation")}
    sizes = next(one for one in results["report"]["listings"] if one["name"] == "related-sizes")
    assert all(float(row[5]) >= 0 for row in sizes["rows"]) and "—" not in [row[1] for row in sizes["rows"]]
