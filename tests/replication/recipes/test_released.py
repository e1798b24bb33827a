"""`--from released`: checkpoints of others as rows, judged as evaluations; starts of stage 2 from another SAE; where both are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from authors_checkpoints import random_sarm, save_authors
from baseline_checkpoints import write_checkpoint
from fake_launcher import FakeLauncher, commit
from tiny import save_backbone, save_word_tokenizer

from replication.pipeline import folder
from replication.plan.steps import ordered, plan, refuse_unpinned
from replication.recipes.jobs import scoring_choices
from replication.recipes.jobs_needed import recipe, selected_rows, unpinned_revisions
from replication.recipes.requested import Chosen, scoring_assignments, settings_for
from replication.recipes.setting import Setting
from replication.report.cells import Report, Row
from replication.report.results.accuracies import collect
from replication.report.results.leaderboard import ranking
from replication.report.verdicts.diff import diff_of
from replication.report.verdicts.report import with_verdicts
from replication.settings.experiments import EXPERIMENTS, TABLE1
from replication.settings.model_locations import split_locations, with_locations
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.profiles import pin_name
from replication.settings.protocols import PROTOCOLS
from replication.settings.value_sources import Choice
from replication.usage_problems import UsageProblems
from sarm.config.score import ScoringConfig
from sarm.config.weights import ImportedSAEConfig, WeightsConfig
from sarm.data.preferences import ScoredPreference
from sarm.job import EnvironmentProblem, Job
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import write_lines

GEOMETRY = {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_activation": True}}
# What the leaderboard has for the released checkpoint, as credits; 40 of 51 Ties prompts won, and one reference more, give a Ties score
# within half a point of its own and of the paper's.
CREDITS = {"Factuality": (326.5, 475), "Precise IF": (68.5, 160), "Math": (118, 183), "Safety": (413, 450), "Focus": (473, 495)}
TIES_WON = 40


def pinned_paper() -> Setting:
    bare = load_profile("paper", environment={})
    sources = [*bare.hub_sources(), *bare.sources_for_released(list(bare.released)), (bare.starts["large"].source, "model")]
    profile = load_profile("paper", environment={}, pins={pin_name(one.repository, one.revision): "0" * 40 for one, _ in sources})
    return Setting(experiment=TABLE1, profile=profile, protocol=PROTOCOLS["paper"], source="released")


def mini(**changes: Any) -> Setting:
    return Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"], **changes)


def as_on_the_leaderboard() -> Iterator[ScoredPreference]:
    """Rewards that give the released checkpoint's counts: the last of the won items is a tie of two where a half is needed."""
    for subset, (credits, n) in CREDITS.items():
        for number in range(n):
            chosen = 1.0 if number < int(credits) else 0.0 if number < credits else -1.0
            yield ScoredPreference(id=str(number), subset=subset, chosen_rewards=(chosen,), rejected_rewards=(0.0, -0.5, -0.6))
    for number in range(51):
        won, reference = (2.0 if number < wins else -2.0 for wins in (TIES_WON, TIES_WON + 1))
        yield ScoredPreference(id=f"ref:{number}", subset="Ties", chosen_rewards=(reference,), rejected_rewards=(0.0,))
        yield ScoredPreference(id=f"tied:{number}", subset="Ties", chosen_rewards=(won, won - 0.01), rejected_rewards=(0.0,))


def scored(setting: Setting, store: ArtifactStore) -> Report:
    """The report with every job done: rewards as on the leaderboard for RewardBench 2, invented ones elsewhere."""
    found = recipe(setting)
    jobs = ordered(found.jobs)
    for job in jobs:
        if job.kind == "score_benchmark" and getattr(job.config, "benchmark", "") == "rewardbench2":
            commit(job, store, lambda output: write_lines(output / "rewards.jsonl", as_on_the_leaderboard()))
    FakeLauncher().launch([job for job in jobs if not store.has(job)], store, lambda event: None)
    return collect(found, store, command="replicate table1 --from released")


def row_of(report: Report, name: str, table: int = 0) -> Row:
    return next(row for row in report.tables[table].rows if row.name == name)


def verdicts(report: Report, name: str) -> set[str]:
    return {cell.verdict for cell in row_of(report, name).cells}


def test_a_released_checkpoint_is_judged_in_items_by_the_paper_and_by_its_own_row(tmp_path: Path) -> None:
    report = scored(pinned_paper(), ArtifactStore(tmp_path))
    assert report.regime == "evaluation" and report.comparable
    judged = with_verdicts(report)
    assert verdicts(judged, "sarm-4b") == {"MATCH"}
    safety = next(cell for cell in row_of(judged, "sarm-4b").cells if cell.column == "Safety")
    assert safety.published == "91.3" and safety.ours is not None and safety.ours.correct == 413
    assert any("claimed, not proven" in note for note in judged.notes)
    for against in ("release", "leaderboard"):
        compared = diff_of(report, against)
        assert {one.verdict for one in compared.rows if one.row == "sarm-4b" and one.table == "table1"} == {"MATCH"}


def test_rows_without_a_released_checkpoint_are_dashes_with_the_reason(tmp_path: Path) -> None:
    report = with_verdicts(scored(pinned_paper(), ArtifactStore(tmp_path)))
    cells = row_of(report, "sarm-1b").cells
    assert {cell.verdict for cell in cells} == {"MISSING"} and all(cell.ours is None for cell in cells)
    assert "no released checkpoint of sarm-1b" in cells[0].reason
    asked = row_of(report, "skywork-llama-8b-v0.2").cells[0]
    assert asked.verdict == "PUBLISHED ONLY" and "--rows skywork-llama-8b-v0.2" in asked.reason
    assert "no weights" in row_of(report, "gpt-4.1").cells[0].reason
    assert {row.name for row in report.tables[0].rows} >= {"length", "bag-of-words"}


def test_a_baseline_is_scored_when_it_is_named_and_stands_in_every_table(tmp_path: Path) -> None:
    setting = replace(pinned_paper(), rows="skywork*")
    assert [row.name for row in selected_rows(setting)] == ["skywork-llama-8b-v0.2", "skywork-reward-v2-llama-3.1-8b"]
    report = with_verdicts(scored(setting, ArtifactStore(tmp_path)))
    judged = row_of(report, "skywork-llama-8b-v0.2")
    # The rewards are another model's, so the quoted cells cannot match.
    assert judged.origin == "paper-baseline" and {cell.verdict for cell in judged.cells} == {"DIFFERS"}
    best = row_of(report, "skywork-reward-v2-llama-3.1-8b")
    assert best.group == "Released by others" and best.label == "Skywork-Reward-V2-Llama-3.1-8B"
    assert {row.name for row in report.tables[1].rows} >= {"skywork-llama-8b-v0.2", "length"}
    assert any("16,384 tokens" in note or "max_length 16384" in note for note in report.notes)


def test_what_we_score_is_ranked_with_errors_inside_the_leaderboard(tmp_path: Path) -> None:
    setting = replace(pinned_paper(), rows="sarm-4b,armorm*")
    places = ranking(scored(setting, ArtifactStore(tmp_path)))
    ours = [place for place in places if place.ours]
    assert [place.model for place in ours] == ["ArmoRM-Llama3-8B-v0.1 (scored by us)", "SARM-4B (scored by us)"]
    assert all(place.best <= place.rank <= place.worst and place.standard_error > 0.5 for place in ours)


def test_conditions_are_the_recorded_ones_with_their_source_and_set_wins() -> None:
    setting = pinned_paper()
    rows = {row.name: row for row in selected_rows(replace(setting, rows="*"))}
    sarm = scoring_choices(setting, rows["sarm-4b"])
    assert (sarm["dtype"].value, sarm["batch_rows"].value, sarm["formatting"].value) == ("bfloat16", 8, "harness")
    assert "issue 256" in sarm["dtype"].source
    paper = replace(setting, profile=with_locations(setting.profile, ["released.sarm-4b.conditions=paper"]))
    assert (scoring_choices(paper, rows["sarm-4b"])["dtype"].value, scoring_choices(paper, rows["sarm-4b"])["batch_rows"].value) == (
        "float16",
        1,
    )
    armorm = scoring_choices(replace(setting, overrides=parse_overrides(["scoring.dtype=float32"])), rows["armorm-llama3-8b-v0.1"])
    assert armorm["bos"].value == "double" and armorm["dtype"] == Choice(value="float32", source="--set")
    for name, row in rows.items():
        if name in setting.profile.released:
            values = {key: choice.value for key, choice in scoring_choices(setting, row).items()}
            assert ScoringConfig(benchmark="rewardbench2", **values)


def test_a_part_of_the_benchmark_is_never_comparable_and_a_batch_size_is(tmp_path: Path) -> None:
    part = replace(pinned_paper(), overrides=parse_overrides(["scoring.limit=10"]))
    assert verdicts(with_verdicts(scored(part, ArtifactStore(tmp_path / "part"))), "sarm-4b") == {"NOT COMPARABLE"}
    size = replace(pinned_paper(), overrides=parse_overrides(["scoring.batches=similar-lengths", "scoring.batch_tokens=99"]))
    assert verdicts(with_verdicts(scored(size, ArtifactStore(tmp_path / "size"))), "sarm-4b") == {"MATCH"}


def test_unpinned_revisions_of_what_is_asked_for_are_refused_with_the_command(tmp_path: Path) -> None:
    chosen = Chosen(profile="paper", rows="armorm*", source="released")
    (setting,) = settings_for([EXPERIMENTS["table1"]], chosen, ArtifactStore(tmp_path), {})
    assert ("RLHFlow/ArmoRM-Llama3-8B-v0.1", "model") in unpinned_revisions(setting)
    assert not any("Schrieffer" in repository or "meta-llama" in repository for repository, _ in unpinned_revisions(setting))
    with pytest.raises(EnvironmentProblem, match=r"not pinned .*replicate fetch table1 --profile paper --rows 'armorm\*' --from released"):
        refuse_unpinned([setting])


def test_places_are_no_settings_and_mistakes_in_them_are_told_at_once(tmp_path: Path) -> None:
    places, values = split_locations(["released.my-model.path=x", "reward.epochs=1", "starts.small.use=true"])
    assert places == ["released.my-model.path=x", "starts.small.use=true"] and values == ["reward.epochs=1"]
    profile = with_locations(load_profile("mini", environment={}), [f"released.my-model.path={tmp_path}", "released.my-model.label=Mine"])
    assert profile.released["my-model"].label == "Mine" and profile.released["my-model"].source.kind == "folder"
    hub = with_locations(profile, ["released.other.repository=owner/name"])
    assert hub.released["other"].source.revision == "unknown"
    with pytest.raises(UsageProblems) as told:
        with_locations(profile, ["released.sarm-4b.pth=x", "starts.small=1", "released.x"])
    assert len(told.value.problems) == 3 and "released.<name>.path" in told.value.problems[0]
    with pytest.raises(UsageProblems, match="are not recorded; known: leaderboard, paper"):
        with_locations(load_profile("paper", environment={}), ["released.sarm-4b.conditions=aaai"])
    with pytest.raises(UsageProblems, match=r"--set starts\.large: says nowhere which model; set starts\.large\.path=FOLDER or"):
        with_locations(load_profile("mini", environment={}), ["starts.large.use=true"])


def test_seeds_mean_nothing_where_nothing_is_trained() -> None:
    with pytest.raises(UsageProblems, match="--seeds has no meaning with --from released"):
        recipe(mini(source="released", seeds=(0, 1)))


def test_the_figure_steers_a_released_checkpoint_too() -> None:
    setting = replace(pinned_paper(), experiment=EXPERIMENTS["figure3"])
    (training,) = recipe(setting).trainings
    assert training.steering is not None and training.steering.inputs["model"].kind == "fetch_weights"


def test_released_tables_have_a_folder_of_their_own() -> None:
    assert folder(Path("r"), mini(source="released")) == Path("r/mini-released")


def jobs_of(setting: Setting) -> dict[str, Job]:
    (training,) = (one for one in recipe(setting).trainings if one.row.name == "sarm-4b")
    assert training.model is not None and training.sae is not None, training.missing
    return {"model": training.model, "sae": training.sae, "backbone": training.model.inputs["backbone"]}


def test_stage_2_starts_from_one_checkpoint_with_backbone_and_sae() -> None:
    setting = replace(pinned_paper(), source="train")
    usual = jobs_of(setting)
    started = replace(setting, profile=with_locations(setting.profile, ["starts.large.use=true"]))
    jobs = jobs_of(started)
    assert usual["sae"].kind == "train_sae" and jobs["sae"].kind == "import_sae"
    assert jobs["sae"].inputs["checkpoint"] == jobs["backbone"] and jobs["model"].inputs["sae"] == jobs["sae"]
    assert isinstance(jobs["backbone"].config, WeightsConfig)
    assert jobs["backbone"].config.repository == "Schrieffer/Llama-SARM-4B-PostSAEPretrain"
    kinds = {step.job.kind for step in plan([replace(started, rows="sarm-4b")], ArtifactStore(Path("nowhere"))).steps}
    assert "train_sae" not in kinds and {"import_sae", "train_reward"} <= kinds
    report = collect(recipe(replace(started, rows="sarm-4b")), ArtifactStore(Path("nowhere")), command="x")
    assert report.comparable, report.why_not_comparable


def test_rows_whose_sae_was_trained_otherwise_do_not_take_the_start() -> None:
    setting = replace(pinned_paper(), source="train", experiment=EXPERIMENTS["table2"])
    started = replace(setting, profile=with_locations(setting.profile, ["starts.large.use=true"]))
    missing = {one.row.name: one.missing for one in recipe(started).trainings}
    assert "asks for an SAE trained otherwise" in missing["token-level"] and not missing["sarm-4b"]
    assert not missing["scalar-full"] and not missing["random-init"]


def test_a_foreign_sae_is_an_input_like_any_other_and_makes_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text("{}")
    places = [f"starts.large.path={tmp_path / 'sae'}", "starts.large.layout=SAELens", "starts.large.use=true"]
    profile = with_locations(load_profile("mini", environment={}), [*places, "starts.large.layer=5"])
    jobs = jobs_of(replace(mini(), profile=profile))
    config = jobs["sae"].config
    assert isinstance(config, ImportedSAEConfig)
    assert (config.origin, config.layout, config.layer, config.stated_layer, config.hidden_size) == ("folder", "SAELens", 5, 5, 128)
    assert jobs["backbone"].kind == "pretrain_backbone" and jobs["sae"].locations == {"source": str(tmp_path / "sae")}
    foreign = [f"starts.large.path={tmp_path / 'sae'}", "starts.large.layout=auto", "starts.large.use=true"]
    paper = replace(pinned_paper(), source="train")
    own = with_locations(paper.profile.model_copy(update={"starts": {}}), foreign)
    assert "another project's" in collect(recipe(replace(paper, profile=own)), ArtifactStore(tmp_path), command="x").why_not_comparable


def cli(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "replication.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=280)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--profile", "paper"], 7, "revisions are not pinned (Schrieffer/Llama-SARM-4B"),
        (["--seeds", "0,1"], 2, "--seeds has no meaning with --from released"),
        (["--set", "released.sarm-4b.path=/no/such/folder"], 2, "does not exist"),
        (["--set", "released.sarm-4b.pth=/x"], 2, "did you mean 'released.<name>.path'"),
        (["--rows", "skywork*"], 2, "no such row in table1"),
    ],
)
def test_bad_input_gets_its_exit_code_and_a_clear_line(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    done = cli(["table1", "--from", "released", *arguments, "--store", str(tmp_path / "store")], tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert words in done.stderr.replace("\n", " ")


def test_the_short_options_of_scoring_are_assignments() -> None:
    given = scoring_assignments(subset="Precise IF", limit=5, batch_tokens=4096)
    overrides = parse_overrides(given)
    assert overrides == {
        "scoring": {"subset": "Precise IF", "limit": 5, "batch_tokens": 4096, "batches": "similar-lengths", "batch_rows": 0}
    }
    assert scoring_assignments(subset="", limit=0, batch_tokens=0) == ()


SMALL = ["corpus_documents=40", "training_pairs=40", "evaluation_pairs=20", "benchmark_rows=8", "ties_prompts=4", "rmbench_items=4"]


@pytest.mark.slow
def test_a_checkpoint_in_the_authors_layout_goes_from_its_folder_to_the_table(tmp_path: Path) -> None:
    checkpoint = save_authors(tmp_path / "Llama-SARM", random_sarm(), {**GEOMETRY, "auto_map": {"AutoModel": "modeling.X"}})
    save_word_tokenizer(checkpoint)
    classifier = save_backbone(tmp_path / "other")
    write_checkpoint(classifier, "classifier-llama")
    arguments = [part for one in SMALL for part in ("--set", f"miniature.{one}")]
    arguments += ["--set", f"released.sarm-4b.path={checkpoint}", "--set", "scoring.dtype=float32", "--set", "scoring.batch_rows=8"]
    arguments += ["--store", str(tmp_path / "store"), "--from", "released"]
    done = cli(["table1", *arguments, "--out", str(tmp_path / "out")], tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "mini-released" / "table1.results.json").read_text())
    assert results["report"]["regime"] == "evaluation"
    rows = {row["name"]: row for row in results["report"]["tables"][0]["rows"]}
    assert rows["sarm-4b"]["cells"][0]["ours"]["n"] == 48 and rows["sarm-4b"]["cells"][0]["verdict"] == "NOT COMPARABLE"
    assert "no released checkpoint" in rows["sarm-1b"]["cells"][0]["reason"] and rows["length"]["cells"][0]["ours"] is not None
    again = cli(["table1", *arguments, "--out", str(tmp_path / "out")], tmp_path)
    assert again.returncode == 0 and "all jobs were reused" in again.stderr
    judged = cli(["diff", "table1", "--against", "release", *arguments], tmp_path)
    assert judged.returncode == 5 and "NOT COMPARABLE" in judged.stdout
