"""Figure 3 with a steering file's edit: the sum of its latents, told as a user's edit and never as the paper's claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_steering import EVERYWHERE, SAFE, SILENT, steering

from replication.report.steering.check import Check
from replication.report.steering.checks import checks
from replication.report.steering.controls import STRENGTHS, dose_curve
from replication.report.steering.experiment import Steering
from replication.report.steering.figure import draw
from replication.report.steering.tables import LISTED, edit_text, over_seeds, planted_blocks, steering_tables

EDIT = {"0": 3.0, "1": 0.0, "2": 7.0}


def by_file(edit: dict[str, float] = EDIT) -> Steering:
    """The artifact of a job that was given a file: latent 2 of it never fires."""
    data = steering(SAFE, ties=4, facts={"edit": edit})
    change = np.sum([data.shift(int(latent), factor) for latent, factor in edit.items()], axis=0)
    return replace(data, steered_rewards=data.rewards + change)


def test_the_change_is_the_sum_over_the_latents_of_the_file() -> None:
    data = by_file()
    z = data.target.activation
    expected = 2.0 * data.head[SAFE] * z(SAFE) - data.head[EVERYWHERE] * z(EVERYWHERE)
    np.testing.assert_allclose(data.change, expected)
    assert data.edit == {0: 3.0, 1: 0.0, 2: 7.0} and data.from_file and not steering(SAFE).from_file
    assert data.touched.all() and not steering(SILENT).touched.any()


def test_an_edit_of_one_latent_in_a_file_moves_what_the_rules_edit_moves() -> None:
    rule, file = steering(SAFE, ties=4, multiplier=3.0), by_file({"0": 3.0})
    np.testing.assert_array_equal(rule.change, file.change)
    same = {check.name: check for check in checks(rule)}
    for check in checks(file):
        assert check.finding == same[check.name].finding and check.outcome == same[check.name].outcome


def test_only_checks_that_ask_nothing_of_a_choice_are_made_and_the_identity_is_one() -> None:
    found = {check.name: check for check in checks(by_file())}
    assert list(found) == ["S0", "S3", "S4", "S5", "S6", "S7", "S7k"] and found["S0"].outcome == "pass"
    assert "the file's edit of 3 latents" in found["S3"].question
    wrong = by_file()
    wrong = replace(wrong, steered_rewards=wrong.steered_rewards + 0.1)
    assert next(check for check in checks(wrong) if check.name == "S0").outcome == "fail"


def test_the_blocks_name_the_file_and_its_latents() -> None:
    data = by_file()
    found = steering_tables(data, checks(data), seed=0)
    assert [one.name for one in found] == [f"figure3-{name}-seed0" for name in ("rewards", "edit", "dose", "checks")]
    assert "edited by a steering file: latent 2 times 7, latent 0 times 3, latent 1 times 0" in found[0].notes[0]
    assert {row[0] for row in found[1].rows} == {"0", "1", "2"} and found[1].rows[-1][:2] == ("2", "7")
    assert [row[0] for row in found[2].rows] == [f"{one:g}" for one in STRENGTHS]
    many = by_file({str(latent): 0.5 for latent in range(60)})
    listed = next(one for one in steering_tables(many, checks(many), seed=0) if one.name == "figure3-edit-seed0")
    assert len(listed.rows) == LISTED and any("of 60" in note for note in listed.notes) and edit_text(many).endswith("and 55 more")


def test_a_dose_is_a_multiple_of_the_edit_and_0_is_the_model_as_trained() -> None:
    data = by_file()
    curve = {dose.multiplier: dose for dose in dose_curve(data)}
    assert set(curve[0.0].shifts.values()) == {0.0}
    assert curve[2.0].shifts["T"] == pytest.approx(2 * curve[1.0].shifts["T"])
    assert curve[1.0].accuracies == data.accuracies(data.rewards + data.change)


def test_no_claim_and_no_planted_concept_is_told_of_a_file(tmp_path: Path) -> None:
    data = by_file()
    found: list[Check] = checks(data)
    assert "claim" not in {row[0] for row in over_seeds({0: found, 1: found}).rows}
    (tmp_path / "concepts.json").write_text("{}")
    blocks = planted_blocks({0: data}, tmp_path / "concepts.json")
    assert not blocks.numbers and not blocks.listings and "the edit is a steering file's" in blocks.notes[0]


def test_the_figure_says_that_a_file_steered(tmp_path: Path) -> None:
    text = draw(by_file(), tmp_path, profile="mini", seed=0, comparable=False, formats=("svg",))[0].read_text(encoding="utf-8")
    for told in ("steered by a file, latent 2 times 7, latent 0 times 3", "not by the paper's rule", "multiple of the file's edit"):
        assert told in text
    assert "argmax-s" not in text
