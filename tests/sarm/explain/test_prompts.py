"""How explanations and detections are read, and what is shown and asked."""

from __future__ import annotations

import random

import pytest
from statsmodels.stats.proportion import proportion_confint

from sarm.explain.prompts import (
    Candidate,
    balanced_interval,
    choose_by_weight,
    choose_negatives,
    detection_prompt,
    detection_score,
    parse_checked,
    parse_matches,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Explanation: a b\nScore: 4", ("a b", 4)),
        ("Explanation: a\nScore: [4]", ("a", 4)),
        ("**Explanation:** a\n**Score:** 2", ("a", 2)),
        ("Explanation: a\nScore: 9", ("a", None)),
        ("Explanation: a\nScore: -2", ("a", None)),
        ("Explanation: a\nScore: 0", ("a", None)),
        ("Explanation: a\nScore: 4.5", ("a", None)),
        ("Explanation: a\nScore: 44", ("a", None)),
        ("Explanation: a\nScore: [5/4/3/2/1]", ("a", None)),
        ("Explanation: a\nScore: 4.", ("a", 4)),
        ("Explanation:\nScore: 3", (None, 3)),
        ("Explanation:\na b\nScore: 3", ("a b", 3)),
        ("**Explanation: a**\n**Score: 3**", ("a", 3)),
        ("Score: 3 is too low... Explanation: x Score: 5", ("x", 5)),
        ("<think>Score: 3</think>Explanation: a\nScore: 4", ("a", 4)),
        ("<think>Explanation: b\nScore: 3", (None, None)),
        ("Explanation: maybe dogs. Explanation: cats or dogs\nScore: 4", ("cats or dogs", 4)),
        ("Explanation: a\nScore: 4/5", ("a", 4)),
        ("Explanation: a\nScore: 4/10", ("a", None)),
        ("Explanation: a\nScore: 4-5", ("a", None)),
        ("Explanation: a\nScore: 3 or 4", ("a", None)),
        ("Explanation: a\nScore: 4\nConfidence: 5", ("a", 4)),
        ("Explanation: a\nConfidence score: 5", ("a", None)),
        ("Explanation: a\nScore (1-5): 4", ("a", 4)),
        ("Explanation: a\nScore: 4 - Clear pattern with one or two deviating examples", ("a", 4)),
        ("Explanation: a\nScore: 4 (all 40 contexts but one)", ("a", 4)),
        ("Explanation: the word score: as in sports\nScore: 5", ("the word score: as in sports", 5)),
        ("no idea", (None, None)),
        ("", (None, None)),
    ],
)
def test_checked_answers_have_a_score_of_the_rubric(text: str, expected: tuple[str | None, int | None]) -> None:
    assert parse_checked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Explanation:\n- dogs\n- cats\nScore: 2", ("- dogs - cats", 2)),
        ("Explanation: dogs\nand cats\nScore: 2", ("dogs and cats", 2)),
        ("Explanation:\n\n- dogs\n\n- cats\n\n**Score:** 2", ("- dogs - cats", 2)),
        ("Explanation:\n1. dogs\n2. cats\nScore (1-5): 2", ("1. dogs 2. cats", 2)),
        ("Explanation: it fires on:\n* dogs: pets\n* cats: pets\n## Score\n2", ("it fires on: * dogs: pets * cats: pets", 2)),
        ("Explanation:\nPattern: animals\nContext: farms\nScore: 2", ("Pattern: animals Context: farms", 2)),
        ("**Explanation: dogs\nand cats**\n**Score: 3**", ("dogs and cats", 3)),
        ("> Explanation: dogs\n> and cats\n> Score: 3", ("dogs and cats", 3)),
        ("Explanation: dogs\r\nand cats\r\nScore: 2", ("dogs and cats", 2)),
        ("Explanation: dogs.\n\nAnd cats.\n---\nScore: 3", ("dogs. And cats.", 3)),
        ("Explanation: dogs\nand cats Score: 5", ("dogs and cats", 5)),
        ("Explanation: dogs\nConfidence: 4\nmore\nScore: 3", ("dogs", 3)),
        ("Explanation: dogs\nand cats\n**Score**\n3", ("dogs and cats", 3)),
        ("Explanation: dogs\nand cats\nScore 3", ("dogs and cats", 3)),
        ("Explanation: dogs\nand cats\nConfidence score: 5", ("dogs and cats", None)),
        ("Score: 4\nExplanation: dogs\nand cats\n\nI hope that this helps!", ("dogs and cats", 4)),
        ("Score: 4\nExplanation:\n- dogs\n\n- cats\n\nBye", ("- dogs - cats", 4)),
    ],
)
def test_an_explanation_has_all_its_lines(text: str, expected: tuple[str | None, int | None]) -> None:
    assert parse_checked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Matches: 1, 3", {0, 2}),
        ("Sure.\n**Matches:** [2,4]", {1, 3}),
        ("Matches: none", set()),
        ("Matches: [None]", set()),
        ("Matches: 5", None),
        ("Matches: 0", None),
        ("Matches:", None),
        ("1 and 3", None),
    ],
)
def test_matches_name_texts_that_are_there(text: str, expected: set[int] | None) -> None:
    assert parse_matches(text, 4) == expected


def test_an_answer_that_was_cut_says_nothing() -> None:
    assert parse_checked("Explanation: a\nScore: 4", ended=False) == (None, None)
    assert parse_matches("Matches: 1", 4, ended=False) is None


def test_detection_texts_are_numbered_and_stay_on_one_line() -> None:
    prompt = detection_prompt("talk of dogs", ["a\n\n1. b", "c"])
    assert "\n1. a 1. b\n2. c\n" in prompt and "talk of dogs" in prompt


def test_latents_are_chosen_by_the_sign_and_size_of_their_weight() -> None:
    weights = {1: 0.5, 2: -0.1, 3: 0.0, 4: 0.9, 5: -0.7}
    assert choose_by_weight(weights, positive=1, negative=9) == ([4], [5, 2])
    assert choose_by_weight({}, positive=2, negative=2) == ([], [])


def test_negatives_are_the_nearest_then_those_with_the_same_token() -> None:
    chosen = choose_negatives(
        ["a", "b", "c", "d", "e", "f"],
        similarity=[0.1, 0.9, 0.2, 0.8, 0.0, 0.3],
        same_token=[True, False, False, False, True, False],
        count=5,
        hard_fraction=0.4,
        rng=random.Random(0),
    )
    assert chosen[:2] == [Candidate("b", "nearest"), Candidate("d", "nearest")]
    assert {candidate.text for candidate in chosen[2:4]} == {"a", "e"} and chosen[4].kind == "random"
    assert choose_negatives([], similarity=[], same_token=[], count=3, hard_fraction=0.5, rng=random.Random(0)) == []


def test_detection_score_counts_each_kind() -> None:
    kinds = ["activating", "activating", "nearest", "random", "nearest", "random"]
    candidates = [Candidate(str(place), kind) for place, kind in enumerate(kinds)]  # type: ignore[arg-type]
    score = detection_score(candidates, [True, False, True, False, False, None])
    assert score is not None
    assert (score.positives, score.negatives, score.hard_negatives, score.unanswered) == (2, 3, 2, 1)
    assert (score.true_positives, score.true_negatives, score.hard_true_negatives) == (1, 2, 1)
    assert score.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert score.low < score.balanced_accuracy < score.high
    assert detection_score(candidates[:2], [True, True]) is None
    assert detection_score(candidates, [None] * 6) is None


def test_the_interval_joins_two_wilson_intervals() -> None:
    low, high = balanced_interval(8, 10, 8, 10)
    wilson_low, wilson_high = proportion_confint(8, 10, method="wilson")
    # Two independent equal shares: the mean's interval is narrower by the root of two.
    assert 0.8 - low == pytest.approx((0.8 - wilson_low) / 2**0.5)
    assert high - 0.8 == pytest.approx((wilson_high - 0.8) / 2**0.5)
    assert balanced_interval(5, 5, 5, 5)[1] == 1.0 and balanced_interval(0, 5, 0, 5)[0] == 0.0
