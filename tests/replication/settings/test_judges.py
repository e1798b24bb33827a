"""Judges in Table 1: who is asked, which jobs follow, what stands in the table, and the whole way on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_launcher import FakeLauncher, commit, rewardbench2

from replication.cli.options.endpoint import Endpoint, refuse_other_addresses
from replication.plan.steps import ordered, plan
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report, Row
from replication.report.published import load_published
from replication.report.results.accuracies import collect
from replication.report.results.files import write_results
from replication.report.results.reading import read_results, rebuilt
from replication.report.verdicts.report import with_verdicts
from replication.settings.experiments import TABLE1
from replication.settings.judges import TABLE1_JUDGES, JudgeRow, Judging, judges_named
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.config.score import JudgeConfig
from sarm.data.preferences import ScoredPreference
from sarm.job import Job
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import write_lines

GPT = next(row for row in TABLE1_JUDGES if row.name == "gpt-4.1")


@pytest.fixture
def mini() -> Setting:
    profile = load_profile("mini", environment={}).model_copy(update={"baselines": ()})
    return Setting(experiment=TABLE1, profile=profile, protocol=PROTOCOLS["paper"], rows="gpt-4.1")


def asking(setting: Setting, *rows: JudgeRow, **changes: Any) -> Setting:
    return replace(setting, judging=Judging(asked=rows, **changes), endpoint="endpoint.json")


def judge_configs(setting: Setting) -> list[JudgeConfig]:
    return [job.config for job in recipe(setting).jobs if isinstance(job.config, JudgeConfig)]


def collected(setting: Setting, store: ArtifactStore, launcher: FakeLauncher | None = None) -> Report:
    found = recipe(setting)
    if launcher:
        launcher.launch(plan([setting], store).todo, store, lambda event: None)
    return with_verdicts(collect(found, store, command="replicate table1"))


def row_of(report: Report, name: str, table: int = 0) -> Row:
    return next(one for one in report.tables[table].rows if one.name == name)


def test_the_judges_are_published_rows_under_the_models_that_the_benchmark_names() -> None:
    published = {row.name: row for row in load_published("table1").rows}
    assert [row.name for row in TABLE1_JUDGES] == [name for name, row in published.items() if row.group == "Closed-source models"]
    for judge in TABLE1_JUDGES:
        assert published[judge.name].model.rpartition("/")[2] == judge.model and published[judge.name].grain == "twelfths"


def test_names_are_registered_judges_or_come_with_a_model() -> None:
    assert judges_named(["gpt-4.1"], TABLE1_JUDGES) == (GPT,)
    (renamed, local) = judges_named(["gpt-4.1=openai/gpt-4.1", "local=Qwen/Qwen3-8B"], TABLE1_JUDGES)
    assert (renamed.model, renamed.ours, local.model, local.ours) == ("openai/gpt-4.1", False, "Qwen/Qwen3-8B", True)
    with pytest.raises(UsageProblems) as caught:
        judges_named(["gpt4.1", "Local=x", "local="], TABLE1_JUDGES)
    assert len(caught.value.problems) == 3 and "did you mean 'gpt-4.1'" in caught.value.problems[0]


def test_an_asked_judge_has_a_job_a_mode_and_benchmark_asked_as_its_row_says(mini: Setting) -> None:
    (config,) = judge_configs(asking(mini, GPT))
    assert (config.judge, config.judge_model, config.mode, config.ranking_prompt) == ("endpoint", GPT.model, "ranking", "system")
    gemini = next(row for row in TABLE1_JUDGES if row.name.startswith("gemini"))
    both = judge_configs(asking(replace(mini, rows="gemini*"), gemini, modes=("ranking", "rating"), benchmarks=("rewardbench2", "rmbench")))
    assert [(one.benchmark, one.mode) for one in both] == [("rewardbench2", "ranking"), ("rewardbench2", "rating"), ("rmbench", "rating")]
    assert {(one.ranking_prompt, one.ranking_tokens) for one in both} == {("gemini", 4096)}
    own = JudgeRow(name="local", model="m", ours=True)
    (merged,) = judge_configs(replace(asking(mini, own), overrides=parse_overrides(["judge.ranking_prompt=merged"])))
    assert (merged.judge_model, merged.ranking_prompt) == ("m", "merged")
    (part,) = judge_configs(replace(asking(mini, GPT), overrides=parse_overrides(["scoring.limit=3", "scoring.subset=Math"])))
    assert (part.subset, part.limit) == ("Math", 3)


def test_a_judge_that_nobody_asks_costs_nothing_and_its_row_is_quoted_with_the_reason(mini: Setting, tmp_path: Path) -> None:
    whole = replace(mini, rows="")
    assert judge_configs(whole) == []
    report = collected(whole, ArtifactStore(tmp_path))
    assert {cell.verdict for cell in row_of(report, "gpt-4.1").cells} == {"PUBLISHED ONLY"}
    (note,) = [note for note in report.tables[0].notes if "not asked" in note]
    assert all(row.name in note for row in TABLE1_JUDGES) and "--api-base URL" in note


def test_a_judge_asked_without_an_endpoint_is_a_dash_with_the_reason(mini: Setting, tmp_path: Path) -> None:
    report = collected(replace(mini, judging=Judging(asked=(GPT,))), ArtifactStore(tmp_path))
    cells = row_of(report, "gpt-4.1").cells
    assert {cell.verdict for cell in cells} == {"MISSING"} and all("--api-base URL" in cell.reason for cell in cells)
    assert cells[0].published == "72.3" and cells[0].ours is None


def test_answers_once_paid_for_stay_in_the_table_without_being_asked_for(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = collected(asking(mini, GPT), store, FakeLauncher())
    later = replace(mini, rows="", stored=store.has)
    assert len(judge_configs(later)) == 1
    assert not [step for step in plan([later], store).steps if step.job.kind == "judge_benchmark" and step.action != "reuse"]
    again = collected(later, store)
    assert row_of(again, "gpt-4.1").cells == row_of(first, "gpt-4.1").cells
    assert row_of(again, "gpt-4.1").cells[4].ours is not None
    assert judge_configs(replace(later, rows="sarm-1b")) == []


def test_a_rating_takes_the_ties_answers_of_a_ranking_and_is_found_again_either_way(mini: Setting, tmp_path: Path) -> None:
    def rating(setting: Setting) -> Job:
        return recipe(setting).judges[0].modes["rating"]

    alone, store = rating(asking(mini, GPT, modes=("rating",))), ArtifactStore(tmp_path)
    after = rating(asking(mini, GPT, modes=("ranking", "rating")))
    assert set(alone.inputs) == {"benchmark"} and set(after.inputs) == {"benchmark", "earlier"} and alone.config == after.config
    jobs = ordered(recipe(asking(mini, GPT, modes=("rating", "ranking"))).jobs)
    assert jobs.index(after.inputs["earlier"]) < jobs.index(after)
    collected(asking(mini, GPT), store, FakeLauncher())
    later = replace(asking(mini, GPT, modes=("rating",)), stored=store.has)
    assert rating(later) == after
    collected(later, store, FakeLauncher())
    assert rating(replace(mini, stored=store.has)) == after
    other = ArtifactStore(tmp_path / "other")
    collected(asking(mini, GPT, modes=("rating",)), other, FakeLauncher())
    assert rating(replace(asking(mini, GPT, modes=("ranking", "rating")), stored=other.has)) == alone


def test_an_asked_judge_that_has_not_answered_is_missing_and_says_how_to_go_on(mini: Setting, tmp_path: Path) -> None:
    cell = row_of(collected(asking(mini, GPT), ArtifactStore(tmp_path)), "gpt-4.1").cells[0]
    assert cell.verdict == "MISSING" and "ranking by gpt-4.1 on rewardbench2" in cell.reason and "replicate table1" in cell.reason


def committed(job: Job, store: ArtifactStore, *, all_right: bool = False, unread: int = 0) -> None:
    items = list(rewardbench2())
    if all_right:
        items = [one if one.subset == "Ties" else one.model_copy(update={"chosen_rewards": (10.0,)}) for one in items]
    facts = {"benchmark": "rewardbench2", "rankings": 20, "ratings": 8, "unread": unread, "reading": "checked", "read_differently": 2}

    def fill(output: Path) -> None:
        write_lines(output / "rewards.jsonl", items)
        (output / "conditions.json").write_text(json.dumps(facts), encoding="utf-8")

    commit(job, store, fill)


def test_of_two_modes_the_better_stands_in_the_published_row_and_the_other_is_a_control(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    setting = asking(mini, GPT, modes=("ranking", "rating"))
    ranking, rating = recipe(setting).judges[0].modes["ranking"], recipe(setting).judges[0].modes["rating"]
    committed(recipe(setting).judges[0].modes["ranking"].inputs["benchmark"], store)
    committed(ranking, store, unread=3)
    committed(rating, store, all_right=True)
    report = collected(setting, store)
    best, other = row_of(report, "gpt-4.1"), row_of(report, "gpt-4.1-ranking")
    assert best.cells[1].ours is not None and best.cells[1].ours.value == 100.0 and best.origin == "paper-baseline"
    assert other.cells[1].ours is not None and other.cells[1].ours.value == 75.0 and other.origin == "control"
    assert "the mode with the better Overall" in best.note and "test set" in best.note
    assert "3 of 28 answers could not be read" in other.note and "reads 2 differently" in other.note
    (path, *files) = write_results(report, recipe(setting), store, tmp_path / "out", command="replicate table1")
    assert {one.name for one in files} >= {"gpt-4.1-rewardbench2.jsonl", "gpt-4.1-ranking-rewardbench2.jsonl"}
    again = rebuilt(read_results(path), path.parent)
    assert row_of(again, "gpt-4.1").cells == best.cells and row_of(again, "gpt-4.1-ranking").cells == other.cells
    official = json.loads((tmp_path / "out" / "table1" / "rewardbench2" / "gpt-4.1.json").read_text())
    assert official["model_type"] == "Generative RM" and official["Math"] == 1.0


def test_a_judge_of_the_users_own_is_a_control_and_can_judge_rm_bench(mini: Setting, tmp_path: Path) -> None:
    own = JudgeRow(name="local", model="m", ours=True)
    setting = asking(replace(mini, rows="local"), own, benchmarks=("rewardbench2", "rmbench"))
    report = collected(setting, ArtifactStore(tmp_path), FakeLauncher())
    assert row_of(report, "local").origin == "control" and row_of(report, "local").label == "local, ranking"
    hard = next(cell for cell in row_of(report, "local", 1).cells if cell.column == "hard").ours
    assert hard is not None and hard.value == 100.0


def test_under_the_paper_profile_a_judges_cells_are_judged(tmp_path: Path) -> None:
    pins = {repository: "0" * 40 for repository, _ in load_profile("paper", environment={}).unpinned()}
    profile = load_profile("paper", environment={}, pins=pins).model_copy(update={"baselines": ()})
    store = ArtifactStore(tmp_path)
    setting = asking(Setting(experiment=TABLE1, profile=profile, protocol=PROTOCOLS["paper"], rows="gpt-4.1"), GPT)
    (judge,) = recipe(setting).judges
    commit(judge.modes["ranking"].inputs["benchmark"], store, lambda output: None)
    # 411 of 450 as an item count that Table 1's GPT-4.1 (87.3) does not allow within its margin of 3 points.
    rewards = [
        ScoredPreference(id=str(number), subset="Safety", chosen_rewards=(float(number < 411),), rejected_rewards=(0.5, 0.0, 0.0))
        for number in range(450)
    ]
    commit(judge.modes["ranking"], store, lambda output: write_lines(output / "rewards.jsonl", rewards))
    cells = {cell.column: cell for cell in row_of(collected(setting, store), "gpt-4.1").cells}
    assert cells["Safety"].ours is not None and cells["Safety"].ours.correct == 411
    assert cells["Safety"].verdict == "INCONCLUSIVE" and cells["Math"].verdict == "MISSING"


def test_a_judge_is_named_once() -> None:
    with pytest.raises(UsageProblems, match="'a' is asked twice"):
        judges_named(["a=m1", "a=m2"], TABLE1_JUDGES)


def test_jobs_of_a_run_keep_what_they_spend_side_by_side_and_their_keys_know_nothing_of_it(mini: Setting) -> None:
    setting = asking(mini, GPT, modes=("ranking", "rating"))
    spending = replace(setting, spending="run")
    jobs = recipe(spending).judges[0].jobs
    assert {job.locations["spent"] for job in jobs} == {f"run/0/judge_benchmark-{job.short_key}.json" for job in jobs}
    assert [job.key for job in jobs] == [job.key for job in recipe(setting).judges[0].jobs]
    fresh = recipe(replace(spending, attempt=2)).judges[0].jobs
    assert {Path(job.locations["spent"]).parent.name for job in fresh} == {"2"}


def answered(job: Job, store: ArtifactStore, facts: dict[str, Any]) -> None:
    def fill(output: Path) -> None:
        write_lines(output / "rewards.jsonl", rewardbench2())
        (output / "conditions.json").write_text(json.dumps(facts), encoding="utf-8")

    commit(job, store, fill)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"answered_by": [{"address": "http://there/v1", "model": "m", "answers": 9}]}, "from http://there/v1, not from http://here/v1"),
        ({}, "from an address that was not kept, not from http://here/v1"),
    ],
)
def test_what_another_address_answered_is_shown_as_asked_for_only_where_that_is_accepted(
    mini: Setting, tmp_path: Path, facts: dict[str, Any], words: str
) -> None:
    store, here = ArtifactStore(tmp_path), Endpoint(api_base="http://here/v1", judges=("gpt-4.1",))
    found = recipe(asking(mini, GPT))
    refuse_other_addresses([found], here, store)
    answered(found.judges[0].modes["ranking"], store, facts)
    with pytest.raises(UsageProblems, match=f"ranking by gpt-4.1 on rewardbench2: is there, with answers {words}; --accept-answers"):
        refuse_other_addresses([found], here, store)
    refuse_other_addresses([found], replace(here, accept_answers=True), store)
    refuse_other_addresses([found], Endpoint(), store)
    if facts:
        refuse_other_addresses([found], replace(here, api_base="http://THERE:80/v1/"), store)


def test_a_row_says_why_answers_are_unread_and_what_else_a_reader_must_know(mini: Setting, tmp_path: Path) -> None:
    facts = {"benchmark": "rewardbench2", "rankings": 20, "ratings": 8, "unread": 6, "reading": "checked", "read_differently": 2}
    more = {
        "grammar": 2,
        "unread_because": {"its words": 1, "context": 2, "length": 2, "abort": 1},
        "answered_by": [{"address": "http://a/v1", "model": "m", "answers": 9}, {"address": "", "model": "", "answers": 3}],
        "asked_without": {"max_tokens": 28, "temperature": 28},
        "perhaps_cut": 4,
    }
    for name, given in (("new", {**facts, **more}), ("old", facts)):
        store = ArtifactStore(tmp_path / name)
        found = recipe(asking(mini, GPT))
        commit(found.judges[0].modes["ranking"].inputs["benchmark"], store, lambda output: None)
        answered(found.judges[0].modes["ranking"], store, given)
        note = row_of(collected(asking(mini, GPT), store), "gpt-4.1").note
        assert "6 of 28 answers could not be read" in note
        if name == "old":
            assert "read by an earlier parser" in note and "/answers.json" in note
            continue
        assert "2 beyond the judge's context" in note and "2 cut at their longest" in note and "1 ended with 'abort'" in note
        assert "answers from an address that was not kept and http://a/v1" in note and "earlier parser" not in note
        assert "28 questions asked without a temperature" in note and "of 4 questions the endpoint counted so few tokens" in note
