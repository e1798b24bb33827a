"""The registry: every row x column resolves to jobs or is published only, and its names are the published ones."""

from __future__ import annotations

import pytest

from replication.recipes.jobs_needed import recipe
from replication.recipes.setting import Setting
from replication.report.published import load_published
from replication.settings.experiments import EXPERIMENTS, ablation, ablation_names, sweep, sweep_values
from replication.settings.overrides import SECTIONS, field_problem, section_problems
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.config.train import SAETrainingConfig


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_every_row_and_column_resolves_to_jobs_or_is_published_only(name: str, profile: str) -> None:
    experiment = EXPERIMENTS[name]
    loaded = load_profile(profile, environment={})
    found = recipe(Setting(experiment=experiment, profile=loaded, protocol=PROTOCOLS["paper"]))
    if experiment.product != "scores":
        ends = {"steering": "steering", "features": "contexts", "hours": "model"}
        assert all(getattr(training, ends[experiment.product]) is not None for training in found.trainings)
        assert found.jobs and not found.baselines
        return
    published = load_published(experiment.published)
    for row in published.rows:
        ours = experiment.row(row.name)
        if ours is None:
            if experiment.compared_with:
                continue
            assert row.origin == "paper-baseline", f"{row.name} is neither trained nor a quoted baseline"
            continue
        (training,) = found.of_row(row.name)
        assert not training.missing
        assert set(training.scores) == set(loaded.benchmarks)
    assert experiment.columns == published.columns
    for ours in experiment.rows:
        assert all(not training.missing and set(training.scores) == set(loaded.benchmarks) for training in found.of_row(ours.name))


@pytest.mark.parametrize("name", [name for name, one in EXPERIMENTS.items() if one.product == "scores"])
def test_every_row_of_ours_is_published_or_says_that_it_is_a_control(name: str) -> None:
    experiment = EXPERIMENTS[name]
    printed = {row.name for row in load_published(experiment.published).rows}
    for row in experiment.rows:
        assert row.control == (row.name not in printed), row.name
        assert row.label or not row.control, f"control {row.name} needs a label of its own"


def test_row_names_are_unique_within_an_experiment() -> None:
    for experiment in EXPERIMENTS.values():
        names = [row.name for row in experiment.rows]
        assert len(set(names)) == len(names)


def test_the_fifteen_printed_rows_of_table_3_are_thirteen_trainings() -> None:
    setting = Setting(experiment=EXPERIMENTS["table3"], profile=load_profile("paper", environment={}), protocol=PROTOCOLS["paper"])
    trainings = recipe(setting).trainings
    assert len(trainings) == 15
    assert len({training.model.key for training in trainings if training.model}) == 13


def test_sarm_1b_and_2b_are_the_rows_layer_14_and_21_of_table_3() -> None:
    profile = load_profile("mini", environment={})
    keys = {}
    for name in ("table1", "table3"):
        found = recipe(Setting(experiment=EXPERIMENTS[name], profile=profile, protocol=PROTOCOLS["paper"]))
        keys |= {(name, training.row.name): training.model for training in found.trainings}
    assert keys["table1", "sarm-1b"] == keys["table3", "layer-14"]
    assert keys["table1", "sarm-2b"] == keys["table3", "layer-21"]


def test_the_token_level_row_as_printed_sees_the_same_text_and_the_matched_one_as_many_vectors() -> None:
    profile = load_profile("mini", environment={})
    found = recipe(Setting(experiment=EXPERIMENTS["table2"], profile=profile, protocol=PROTOCOLS["paper"]))
    configs = {training.row.name: training.sae.config for training in found.trainings if training.sae}
    vectors = {name: config.vectors for name, config in configs.items() if isinstance(config, SAETrainingConfig)}
    assert vectors["token-level"] == profile.text.token_vectors
    assert vectors["token-level-matched"] == vectors["sarm-4b"]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda one: one.name)
def test_a_protocol_gives_only_values_that_its_configs_take_and_says_where_each_comes_from(protocol) -> None:
    for section in SECTIONS:
        found = protocol.section(section)
        assert section_problems(section, {name: choice.value for name, choice in found.items()}) == []
        assert all(choice.source for choice in found.values())
        for name, choice in found.items():
            assert not field_problem(SECTIONS[section], name, choice.value)
    assert protocol.checkpoint_rule.value in ("last", "validation")


def test_protocols_differ_where_the_written_specifications_do() -> None:
    value = {name: {field: choice.value for field, choice in protocol.reward.items()} for name, protocol in PROTOCOLS.items()}
    assert (value["paper"]["batch_pairs"], value["paper"]["learning_rate"], value["paper"]["latents"]) == (8, 4e-6, "topk")
    assert (value["aaai"]["batch_pairs"], value["aaai"]["learning_rate"]) == (512, 4e-6)
    assert (value["authors"]["batch_pairs"], value["authors"]["latents"], value["authors"]["sae_trains"]) == (256, "pre_acts", True)
    december = value["authors-dec"]
    assert (december["latents"], december["sae_trains"], december["learning_rate"]) == ("topk", False, 2e-6)


def test_ablations_and_sweeps_are_cuts_of_the_tables() -> None:
    assert ablation_names() == ("random-init", "token-level")
    assert [row.name for row in ablation("random-init").rows] == ["random-init", "random-init-matched", "sarm-4b"]
    assert sweep_values("layer") == (7, 10, 14, 21, 28)
    assert [row.name for row in sweep("k", (48, 240)).rows] == ["k-48", "k-240"]
