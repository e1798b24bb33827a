"""The paper's layers and k at the same share of another model, exact or with the reason why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.own_profile.shares import counterparts
from replication.settings.profile_files import load_profile
from replication.settings.profiles import Shape

PAPER = load_profile("paper", environment={}).backbones


def shape(layers: int, width: int) -> Shape:
    rest = {"intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 90}
    return Shape(num_hidden_layers=layers, hidden_size=width, **rest)


@pytest.mark.parametrize("slot", ["small", "large"])
def test_the_paper_s_own_models_stand_for_themselves(slot: str) -> None:
    paper = PAPER[slot]
    found = counterparts(paper, paper.sizes)
    assert found.layers == dict(paper.layers) and found.ks == dict(paper.ks)


@pytest.mark.parametrize("slot", ["small", "large"])
def test_the_miniature_s_hand_written_counterparts_come_out(slot: str) -> None:
    mini = load_profile("mini", environment={}).backbones[slot]
    found = counterparts(PAPER[slot], mini.sizes)
    for ours, theirs in ((found.layers, mini.layers), (found.ks, mini.ks)):
        assert {paper: one.value for paper, one in ours.items()} == {paper: one.value for paper, one in theirs.items()}
        assert {paper for paper, one in ours.items() if one.inexact} == {paper for paper, one in theirs.items() if one.inexact}


def test_a_note_names_both_shares() -> None:
    note = counterparts(PAPER["small"], shape(5, 64)).layers[14].inexact
    assert note == "layer 14 of 28 is 50 % of the depth, its counterpart 3 of 5 is 60 %"


@given(layers=st.integers(1, 200), width=st.integers(8, 20000), slot=st.sampled_from(["small", "large"]))
def test_each_is_the_nearest_that_there_is_and_says_when_it_is_not_exact(layers: int, width: int, slot: str) -> None:
    paper, own = PAPER[slot], shape(layers, width)
    found = counterparts(paper, own)
    for values, whole, own_whole in ((found.layers, paper.sizes.num_hidden_layers, layers), (found.ks, paper.sizes.hidden_size, width)):
        for theirs, one in values.items():
            assert 1 <= one.value <= own_whole
            miss = abs(one.value * whole - theirs * own_whole)
            assert (one.inexact == "") == (miss == 0)
            assert one.value == 1 or 2 * miss <= whole, "no other whole number is nearer"
            shares = [part for part in one.inexact.replace(",", "").split() if part.replace(".", "").isdigit()]
            assert len(set(one.inexact.split(" is ")[1:])) == (2 if one.inexact else 0), shares
