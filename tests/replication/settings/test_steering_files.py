"""Steering files: what is one, and what is refused by the name of its file and its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from replication.settings.steering_files import read_steering_file
from sarm.config.score import ConversationScoringConfig
from sarm.job import IntegrityProblem, Job, UsageProblem

MODEL = {"head_sha256": "a" * 64, "n_latents": 24, "layer": 2}
FILE = {"schema_version": "1.0", "name": "a model", "model": MODEL, "factors": {"7": 2.5, "3": 1, "20": 0, "5": -1}}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "steering.json"
    path.write_text(json.dumps({**FILE, **changes}))
    return path


def test_a_file_is_read_without_what_changes_nothing(tmp_path: Path) -> None:
    edit = read_steering_file(written(tmp_path))
    assert edit.factors == {5: -1.0, 7: 2.5, 20: 0.0} and edit.model.model_dump() == MODEL


def test_equal_edits_have_equal_keys_and_none_has_the_key_of_before(tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        return Job(config=ConversationScoringConfig(model_digest="m", conversations_digest="c", **changes)).key

    one = read_steering_file(written(tmp_path))
    other = read_steering_file(written(tmp_path, name="", factors={"20": 0.0, "5": -1.0, "7": 2.5, "9": 1.0}))
    assert key(steering=one) == key(steering=other) != key() == key(steering=None)
    assert key(steering=read_steering_file(written(tmp_path, factors={"7": 2.4}))) != key(steering=one)
    again = ConversationScoringConfig.model_validate_json(json.dumps(ConversationScoringConfig(
        model_digest="m", conversations_digest="c", steering=one
    ).content()))  # fmt: skip
    assert again.steering == one, "a job's request holds the edit whole"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": {}}, "factors: no latent has a factor other than 1"),
        ({"factors": {"7": 1.0}}, "factors: no latent has a factor other than 1"),
        ({"factors": {"7": float("nan")}}, "factors.7: Input should be a finite number"),
        ({"factors": {"7": float("-inf")}}, "factors.7: Input should be a finite number"),
        ({"factors": {"7": 1001}}, "factors.7: Input should be less than or equal to 1000"),
        ({"factors": {"7": -1001}}, "factors.7: Input should be greater than or equal to -1000"),
        ({"factors": {"7": "2"}}, "factors.7: Input should be a valid number"),
        ({"factors": {"7": True}}, "factors.7: Input should be a valid number"),
        ({"factors": {"7": None}}, "factors.7: Input should be a valid number"),
        ({"factors": {"-7": 2}}, "factors.-7: Input should be greater than or equal to 0"),
        ({"factors": {"seven": 2}}, "factors: 'seven' is no latent"),
        ({"factors": {"07": 2, "7": 3}}, "factors: '07' is no latent; write its number alone"),
        ({"factors": {"24": 2}}, "latent 24 does not exist; the model named in the file has 24"),
        ({"factors": [7]}, "factors: Input should be a valid dictionary"),
        ({"model": {**MODEL, "head_sha256": "abc"}}, "model.head_sha256"),
        ({"model": "a"}, "model: Input should be"),
        ({"multiplier": 2}, "multiplier: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_steering_file_is_refused_by_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageProblem) as found:
        read_steering_file(written(tmp_path, **changes))
    assert f"{tmp_path.name}/steering.json" in str(found.value) and message in str(found.value)
    assert "\n" not in str(found.value) and "replicate demo --model DIR" in str(found.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"factors": {"7": 2, "7": 3}}', "\x00"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "steering.json").write_text(text)
    with pytest.raises(UsageProblem, match=r"/steering\.json: "):
        read_steering_file(tmp_path / "steering.json")


def test_a_file_of_another_shape_is_an_integrity_problem_and_one_that_is_absent_a_usage_problem(tmp_path: Path) -> None:
    with pytest.raises(IntegrityProblem, match=r"schema_version '2\.0', and this program reads '1\.0'"):
        read_steering_file(written(tmp_path, schema_version="2.0"))
    with pytest.raises(UsageProblem, match="no such file; save it again with: replicate demo"):
        read_steering_file(tmp_path / "absent.json")
