"""Recipes: shared work is one job, seeds change what a seed changes, and what does not fit is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from folders import ROOT

from replication.plan.cost import Estimator
from replication.plan.steps import STAGES, ordered
from replication.recipes.jobs import BROUGHT_IN
from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS, TABLE1
from replication.settings.overrides import JOB_KINDS, parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.profiles import Counterpart, FileData, shipped_profiles
from replication.settings.protocols import PROTOCOLS
from replication.usage_problems import UsageProblems
from sarm.config.data import DataConfig, SplitterConfig
from sarm.config.latents import SteeringConfig
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.config.weights import WeightsConfig
from sarm.job import Job, topological_order

EXAMPLES = ROOT / "examples"


@pytest.fixture
def mini() -> Setting:
    return Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])


def test_rows_on_one_backbone_share_its_job_and_the_data(mini: Setting) -> None:
    jobs = topological_order(recipe(mini).jobs)
    kinds = [job.kind for job in jobs]
    assert kinds.count("make_miniature") == 1
    assert kinds.count("pretrain_backbone") == 2
    assert kinds.count("train_sae") == kinds.count("train_reward") == 3
    assert kinds.count("score_benchmark") == 9 and kinds.count("score_baseline") == 6


def test_seeds_change_what_a_seed_changes_and_nothing_else(mini: Setting) -> None:
    one, two = (topological_order(recipe(replace(mini, seeds=(seed,))).jobs) for seed in (0, 1))
    shared = {job.key for job in one} & {job.key for job in two}
    assert {job.kind for job in one if job.key in shared} == {"make_miniature", "pretrain_backbone", "score_baseline"}
    for left, right in zip(one, two, strict=True):
        if isinstance(left.config, SAETrainingConfig | RewardTrainingConfig):
            assert left.config.model_copy(update={"seed": 1}) == right.config
        else:
            assert left.config == right.config


def test_a_k_beyond_the_width_names_row_and_sizes_before_anything_runs(mini: Setting) -> None:
    large = mini.profile.backbones["large"]
    wrong = large.model_copy(update={"ks": {**large.ks, 192: Counterpart(value=10**6)}})
    profile = mini.profile.model_copy(update={"backbones": {**mini.profile.backbones, "large": wrong}})
    with pytest.raises(UsageProblems, match=r"row sarm-4b, SAE: k = 1000000 is larger than n_latents = \d+; choose k <= n_latents"):
        recipe(replace(mini, profile=profile))


def test_steering_puts_topk_in_where_a_protocol_trains_without(mini: Setting) -> None:
    found = {}
    for name, protocol in PROTOCOLS.items():
        (training,) = recipe(replace(mini, experiment=EXPERIMENTS["figure3"], protocol=protocol)).trainings
        assert training.steering is not None and isinstance(training.steering.config, SteeringConfig)
        assert training.model is not None and isinstance(training.model.config, RewardTrainingConfig)
        found[name] = (training.model.config.latents, training.steering.config.latents)
    steered_as_trained = ("topk", "model")
    assert found == {
        "paper": steered_as_trained, "aaai": steered_as_trained, "authors": ("pre_acts", "topk"), "authors-dec": ("topk", "topk")
    }  # fmt: skip


def test_the_released_recipe_brings_the_data_of_its_own_sentence_splitter(mini: Setting, tmp_path: Path) -> None:
    paper = replace(mini, profile=load_profile("paper", environment={}))

    def splitters(setting: Setting) -> list[Job]:
        found = [training.sae.inputs.get("splitter") for training in recipe(setting).trainings if training.sae is not None]
        return [job for job in found if job is not None]

    released = splitters(replace(paper, protocol=PROTOCOLS["authors"]))
    assert len(released) == 3 and len({job.key for job in released}) == 1
    assert isinstance(released[0].config, SplitterConfig) and released[0].config.origin == "url" and released[0].kind in BROUGHT_IN
    assert not splitters(paper) and not splitters(replace(mini, protocol=PROTOCOLS["authors"]))
    local = paper.profile.model_copy(update={"splitter": FileData(kind="file", path=str(tmp_path))})
    (one, *_) = splitters(replace(paper, profile=local, protocol=PROTOCOLS["authors"], digest=lambda path: "0" * 64))
    assert one.locations == {"source": str(tmp_path)} and one.config == SplitterConfig(origin="folder", revision="0" * 64)


def test_set_wins_over_profile_and_resources_do_not_change_keys(mini: Setting) -> None:
    changed = replace(mini, overrides=parse_overrides(["reward.epochs=5", "resources.train_sae.threads=1"]))
    before, after = recipe(mini).trainings[0], recipe(changed).trainings[0]
    assert before.sae == after.sae and after.sae is not None and after.sae.resources.threads == 1
    assert after.model is not None and isinstance(after.model.config, RewardTrainingConfig)
    assert after.model.config.epochs == 5 and after.model != before.model


def test_rows_can_be_chosen_by_name_slot_and_backbone_and_an_idle_pattern_is_refused(mini: Setting) -> None:
    def names(pattern: str) -> list[str]:
        return [training.row.name for training in recipe(replace(mini, rows=pattern)).trainings]

    assert names("sarm-4b") == names("large") == names("8B") == ["sarm-4b"]
    assert names("3b") == names("sarm-1b,sarm-2b") == ["sarm-1b", "sarm-2b"]
    with pytest.raises(UsageProblems, match="did you mean 'sarm-4b'"):
        recipe(replace(mini, rows="sarm-4"))


def test_a_new_attempt_repeats_what_is_computed_and_not_what_is_brought_in() -> None:
    pins = {repository: "0" * 40 for repository, _ in load_profile("paper", environment={}).unpinned()}
    paper = Setting(experiment=TABLE1, profile=load_profile("paper", environment={}, pins=pins), protocol=PROTOCOLS["paper"])
    old, new = (topological_order(recipe(replace(paper, attempt=attempt)).jobs) for attempt in (0, 1))
    kept = {job.kind for job in new if job in old}
    assert kept == {"fetch_weights", "prepare_data"}


def test_files_are_known_by_their_content_and_only_located_by_their_path(tmp_path: Path) -> None:
    environment = {"SARM_DATA": str(tmp_path)}
    profile = load_profile(str(EXAMPLES / "real-small.toml"), environment=environment)
    shape = profile.backbones["small"].shape
    model = tmp_path / "models" / "english4m"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(shape.model_dump()), encoding="utf-8")
    for name in ("corpus/text.jsonl", "preference/pairs.jsonl", "rewardbench2/safety.jsonl", "rmbench/chat.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    setting = Setting(experiment=TABLE1, profile=profile, protocol=PROTOCOLS["paper"], digest=lambda path: f"digest of {path.name}")
    jobs = topological_order(recipe(setting).jobs)
    weights = next(job for job in jobs if isinstance(job.config, WeightsConfig))
    pairs = next(job for job in jobs if isinstance(job.config, DataConfig) and job.config.shape == "pairs")
    assert weights.config.revision == "digest of english4m" and dict(weights.locations) == {"source": str(model)}
    assert pairs.config.evaluation_split == "prompt-sha256-mod-5"
    assert str(tmp_path) not in json.dumps([job.config.model_dump() for job in jobs])


def test_a_missing_folder_and_a_false_shape_are_told(tmp_path: Path) -> None:
    profile = load_profile(str(EXAMPLES / "real-small.toml"), environment={"SARM_DATA": str(tmp_path)})
    setting = Setting(experiment=TABLE1, profile=profile, protocol=PROTOCOLS["paper"], digest=lambda path: "0")
    for name in ("rewardbench2/safety.jsonl", "rmbench/chat.json", "preference/pairs.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(UsageProblems, match="english4m does not exist"):
        recipe(setting)
    model = tmp_path / "models" / "english4m"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 4}), encoding="utf-8")
    with pytest.raises(UsageProblems, match=r"hidden_size = 256, but .* says 64"):
        recipe(setting)


def test_a_row_without_a_counterpart_says_why(mini: Setting) -> None:
    small = mini.profile.backbones["small"]
    profile = mini.profile.model_copy(update={"backbones": {"small": small.model_copy(update={"layers": {14: small.layers[14]}})}})
    found = {training.row.name: training.missing for training in recipe(replace(mini, profile=profile)).trainings}
    assert found["sarm-1b"] == ""
    assert "no counterpart of layer 21" in found["sarm-2b"]
    assert "no backbone in slot large" in found["sarm-4b"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("profile", sorted(shipped_profiles()))
def test_every_experiment_has_jobs_under_every_protocol_and_every_job_a_cost(profile: str, protocol: str) -> None:
    for experiment in EXPERIMENTS.values():
        found = recipe(Setting(experiment=experiment, profile=load_profile(profile, environment={}), protocol=PROTOCOLS[protocol]))
        jobs = topological_order(found.jobs)
        costs = Estimator.of(found).costs(jobs)
        assert all(cost.cpu_seconds > 0 for cost in costs)
        assert all(cost.flops > 0 for job, cost in zip(jobs, costs, strict=True) if job.kind.startswith("train"))


def test_a_plan_puts_inputs_first_and_saes_of_one_backbone_together(mini: Setting) -> None:
    jobs = ordered(recipe(replace(mini, experiment=EXPERIMENTS["table3"])).jobs)
    seen: set[str] = set()
    for job in jobs:
        assert all(needed.key in seen for needed in job.inputs.values())
        seen.add(job.key)
    places = [place for place, job in enumerate(jobs) if job.kind == "train_sae"]
    assert places == list(range(places[0], places[0] + 13))
    assert set(STAGES) == set(JOB_KINDS)


def test_a_global_batch_that_its_processes_cannot_share_is_refused(mini: Setting) -> None:
    overrides = parse_overrides(["reward.batch_pairs=15", "resources.train_reward.processes=2"])
    with pytest.raises(UsageProblems, match=r"reward\.batch_pairs = 15 is not a multiple of resources\.train_reward\.processes = 2"):
        recipe(replace(mini, overrides=overrides))


def test_processes_for_all_reach_the_work_that_several_can_share(mini: Setting) -> None:
    general = ["resources.processes=2", "resources.zero_stage=3", "resources.gpus=2", "resources.threads=1", "resources.train_sae.gpus=0"]
    jobs = topological_order(recipe(replace(mini, overrides=parse_overrides(general))).jobs)
    assert {job.kind for job in jobs} >= {"train_sae", "train_reward", "score_benchmark", "pretrain_backbone"}
    expected = {"train_sae": (2, 3), "train_reward": (2, 3), "score_benchmark": (2, 0)}
    for job in jobs:
        found = job.resources
        assert (found.processes, found.zero_stage) == expected.get(job.kind, (1, 0)) and found.threads == 1, job.kind
        assert found.gpus == {"train_sae": 0, "train_reward": 2, "score_benchmark": 2}.get(job.kind, 1), job.kind
    assert {job.key for job in jobs} == {job.key for job in topological_order(recipe(mini).jobs)}, "where it runs is no part of a key"


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["pretrain_backbone.processes=2"], "pretrain_backbone.processes = 2: this kind of work runs in one process"),
        (["score_benchmark.zero_stage=1"], "score_benchmark.zero_stage = 1: this kind of work knows zero_stage = 0 alone"),
        (["score_benchmark.offload=optimizer"], "score_benchmark.offload = optimizer: this kind of work has no optimizer"),
        (["train_sae.offload=optimizer"], "train_sae.offload = optimizer: this kind of work needs zero_stage = 1 or 2 or 3 for it"),
        (
            ["train_reward.offload=optimizer", "train_reward.processes=2"],
            "train_reward.offload = optimizer: several processes need zero_stage = 1 or 2 or 3 for it",
        ),
    ],
)
def test_resources_that_a_kind_of_work_cannot_use_are_refused(mini: Setting, assignments: list[str], message: str) -> None:
    overrides = parse_overrides([f"resources.{one}" for one in assignments])
    with pytest.raises(UsageProblems, match=re.escape(f"resources.{message}")):
        recipe(replace(mini, overrides=overrides))


def test_states_in_the_host_are_for_training_alone(mini: Setting) -> None:
    overrides = parse_overrides(["resources.offload=optimizer", "resources.zero_stage=2"])
    jobs = topological_order(recipe(replace(mini, overrides=overrides)).jobs)
    assert {job.kind for job in jobs if job.resources.offload == "optimizer"} == {"train_sae", "train_reward"}


@pytest.mark.parametrize("name", ["features", "figure3", "table1", "related"])
def test_an_experiment_of_a_profile_without_its_benchmark_says_so(name: str, mini: Setting) -> None:
    held_out = {"evaluation": mini.profile.benchmarks["evaluation"]}
    bare = replace(mini, experiment=EXPERIMENTS[name], profile=mini.profile.model_copy(update={"benchmarks": held_out}))
    found = recipe(bare)
    assert found.jobs
    if name in ("features", "figure3"):
        assert all("profile mini has no benchmark" in training.missing for training in found.trainings)
    named = replace(bare, overrides={"contexts": {"texts": "evaluation"}})
    if name == "features":
        assert all(training.contexts is not None for training in recipe(named).trainings if not training.missing)
