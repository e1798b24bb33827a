"""Profiles: the shipped ones are whole, and a wrong file is told everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders import ROOT

from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.profiles import shipped_profiles
from replication.usage_problems import UsageProblems

EXAMPLES = ROOT / "examples"
MINI = shipped_profiles()["mini"]


def changed(tmp_path: Path, *replacements: tuple[str, str]) -> str:
    text = MINI.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "wrong.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems_of(name: str, **environment: str) -> tuple[str, ...]:
    with pytest.raises(UsageProblems) as caught:
        load_profile(name, environment=environment)
    assert caught.value.exit_code == 2
    return caught.value.problems


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_a_shipped_profile_is_valid_and_bears_its_file_name(name: str) -> None:
    assert load_profile(name, environment={}).name == name


@pytest.mark.parametrize("name", ["real-small", "real-stories"])
def test_an_example_profile_expands_sarm_data(name: str) -> None:
    profile = load_profile(str(EXAMPLES / f"{name}.toml"), environment={"SARM_DATA": "/data"})
    assert getattr(profile.preferences.source, "path", "") == "/data/preference/pairs.jsonl"
    assert not profile.comparable and profile.why_not_comparable


def test_three_mistakes_are_reported_at_once_with_file_key_and_nearest_name(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ("batch_vectors = 512", "batch_vectrs = 512"),
        ("comparable = false", "comparble = false"),
        ("[resources.train_reward]", "[resources.train_rewards]"),
    )
    found = problems_of(path)
    assert all(line.startswith(f"{path}: ") for line in found)
    text = "\n".join(found)
    assert "sae.batch_vectrs: unknown key; did you mean 'batch_vectors'" in text
    assert "comparble: unknown key; did you mean 'comparable'" in text
    assert "resources.train_rewards: unknown kind of job; did you mean 'train_reward'" in text
    assert "comparable: missing" in text


def test_wrong_values_and_nested_names_are_reported_with_their_key(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        ("micro_batch_tokens = 2048", "micro_batch_tokns = 2048"),
        ('kind = "miniature", context', 'kind = "miniture", context'),
        ("[benchmarks.rmbench]", "[benchmarks.rmbnch]"),
        ("max_length = 256", 'max_length = "long"'),
    )
    text = "\n".join(problems_of(path))
    assert "resources.train_sae.micro_batch_tokns: unknown key; did you mean 'micro_batch_tokens'" in text
    assert "backbones.small.source.kind" in text
    assert "benchmarks.rmbnch: unknown name" in text
    assert "reward.max_length" in text and "'long'" in text


def test_a_layer_beyond_the_model_and_values_that_rows_decide_are_refused(tmp_path: Path) -> None:
    text = "\n".join(problems_of(changed(tmp_path, ("28 = 8", "28 = 9"))))
    assert "backbones.small.layers.28: layer 9 is beyond the model's 8 layers" in text
    text = "\n".join(problems_of(changed(tmp_path, ("[sae]", "[sae]\nlayer = 3\nseed = 1"))))
    assert "sae.layer: is decided by" in text and "sae.seed: is decided by --seeds" in text


def test_an_unknown_profile_a_missing_file_and_broken_toml_have_one_line_each(tmp_path: Path) -> None:
    assert problems_of("pper") == ("unknown profile (or TOML file) 'pper'; did you mean 'paper'?",)
    assert "no such profile file" in problems_of(str(tmp_path / "none.toml"))[0]
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ", encoding="utf-8")
    assert "not a TOML file" in problems_of(str(broken))[0]


def test_a_profile_with_a_byte_order_mark_is_the_one_without(tmp_path: Path) -> None:
    marked, plain = tmp_path / "marked.toml", tmp_path / "plain.toml"
    plain.write_text(MINI.read_text(encoding="utf-8"), encoding="utf-8")
    marked.write_text(MINI.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert marked.read_bytes() != plain.read_bytes()
    assert load_profile(str(marked), environment={}) == load_profile(str(plain), environment={})


def test_an_unset_variable_is_named() -> None:
    assert any("environment variable SARM_DATA is not set" in line for line in problems_of(str(EXAMPLES / "real-small.toml")))


def test_the_paper_profile_lists_unpinned_and_gated_repositories_and_pins_replace_them() -> None:
    profile = load_profile("paper", environment={})
    assert ("meta-llama/Llama-3.1-8B-Instruct", "model") in profile.unpinned()
    assert "meta-llama/Llama-3.2-3B-Instruct" in profile.gated()
    pins = {repository: "0" * 40 for repository, _ in profile.unpinned()}
    assert load_profile("paper", environment={}, pins=pins).unpinned() == []


def test_mini_marks_the_counterparts_that_are_not_exact() -> None:
    small = load_profile("mini", environment={}).backbones["small"]
    assert {layer for layer, found in small.layers.items() if found.inexact} == {10}
    assert {k for k, found in small.ks.items() if found.inexact} == {196}


def test_set_reads_values_as_toml_and_reports_every_mistake() -> None:
    assert parse_overrides(["reward.epochs=1", "sae.tokens=all", "resources.train_reward.threads=1"]) == {
        "reward": {"epochs": 1},
        "sae": {"tokens": "all"},
        "resources.train_reward": {"threads": 1},
    }
    with pytest.raises(UsageProblems) as caught:
        parse_overrides(["reward.epoch=1", "nonsense", "sae.k=3", "reward.epochs=0", "rewrd.epochs=1"])
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "did you mean 'epochs'" in text and "SECTION.FIELD=VALUE" in text and "decided by" in text
    assert "greater than or equal to 1" in text and "'reward.epochs'" in text
