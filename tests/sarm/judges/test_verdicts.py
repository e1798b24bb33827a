"""A judge's words to rewards, against values that the official harness computed (tests/fixtures/judges.json) and by hand."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from typing import Any

import pytest
from folders import FIXTURES

from sarm.judges import prompts
from sarm.judges.verdicts import (
    LETTERS,
    UNREAD,
    displayed,
    position_of,
    ranking_credit,
    ranking_prompt,
    ranking_rewards,
    rating_credit,
    rating_prompt,
    read_rating,
    read_verdict,
)
from sarm.metrics.rewardbench2 import best_of_n_credits
from sarm.metrics.ties import TiesRow, ties_score

OFFICIAL: dict[str, Any] = json.loads((FIXTURES / "judges.json").read_text(encoding="utf-8"))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", sorted(OFFICIAL["prompts_sha256"]))
def test_prompts_are_the_official_ones_to_the_byte(name: str) -> None:
    assert digest(getattr(prompts, name)) == OFFICIAL["prompts_sha256"][name]


def test_a_ranking_question_is_put_together_as_officially_and_braces_in_texts_stay() -> None:
    shown = ("one {x}", "two", "three", "four")
    system, text = ranking_prompt("why {y}?", shown, "system")
    assert [digest(system), digest(text)] == OFFICIAL["ranking_sha256"]["None"]
    assert "why {y}?" in text and "one {x}" in text
    system, text = ranking_prompt("why {y}?", shown, "gemini")
    assert system == "" and OFFICIAL["ranking_sha256"]["gemini"] == [None, digest(text)]
    system, text = ranking_prompt("why {y}?", shown, "merged")
    assert system == "" and text.startswith(prompts.RANKING_SYSTEM + "\n\n[User Question]\nwhy {y}?\n")


def test_a_rating_question_of_the_ties_subset_does_not_ask_for_depth() -> None:
    plain, ties = (rating_prompt("q {prompt}", "c {completion}", ties=flag) for flag in (False, True))
    assert "[Query]\nq {prompt}\n\n[Response]\nc {completion}\n\n[Your judgement]" in plain and "depth, creativity" in plain
    assert "need not consider depth" in ties and ties.partition("[Query]")[2] == plain.partition("[Query]")[2]


@pytest.mark.parametrize(("answer", "expected"), sorted(OFFICIAL["ratings"].items()))
def test_the_official_reading_of_ratings_is_the_official_one(answer: str, expected: int) -> None:
    assert read_rating(answer, "official") == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Clear and right.\n\n9", 9),
        ("10", 10),
        ("9/10", 9),
        ("Rating: 9/10", 9),
        ("Rating: 10/10.", 10),
        ("9 / 10", 9),
        ("8.5", 8.5),
        ("8.5/10", 8.5),
        ("9 out of 10", 9),
        ("**9**", 9),
        ("**Rating: 9**", 9),
        ("**9**/10", 9),
        ("Rating: [[6]]", 6),
        ("I rate it 7.", 7),
        ("1 to 10: 8", 8),
        ("On a scale of 1-10, I say 4", 4),
        ("It is good.", UNREAD),
        ("", UNREAD),
        ("0", UNREAD),
        ("11", UNREAD),
        ("12/10", UNREAD),
        ("-5", UNREAD),
        ("\u22125", UNREAD),
        ("3/5", UNREAD),
        ("9/100", UNREAD),
        ("7-8", UNREAD),
        ("7 - 8", UNREAD),
        ("7 to 8", UNREAD),
        ("7 or 8", UNREAD),
        ("8,5", UNREAD),
        ("1,000", UNREAD),
        ("1000", UNREAD),
        ("2024", UNREAD),
        ("07", UNREAD),
        ("x9", UNREAD),
        ("version 1.2.3", UNREAD),
        ("9 stars", UNREAD),
        ("nine", UNREAD),
        ("9\n\nBut that is only my view", UNREAD),
        ("\u0669", UNREAD),
    ],
)
def test_the_checked_reading_takes_a_rating_as_it_is_meant_or_none(answer: str, expected: float) -> None:
    assert read_rating(answer, "checked") == expected


@pytest.mark.parametrize(("answer", "expected"), sorted(OFFICIAL["verdicts"].items()))
def test_the_official_reading_of_verdicts_is_the_official_one(answer: str, expected: str) -> None:
    verdict = read_verdict(answer, "official")
    assert ("error" if verdict is None else LETTERS[verdict]) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("so [[D]]", "D"), ("[[A]] is weak; my verdict: [[C]]", "C"), ("[[B]]", "B"), ("[[E]]", None), ("[A]", None), ("A", None), ("", None)],
)
def test_the_checked_verdict_is_the_one_named_last(answer: str, expected: str | None) -> None:
    verdict = read_verdict(answer, "checked")
    assert (None if verdict is None else LETTERS[verdict]) == expected


@pytest.mark.parametrize("case", OFFICIAL["credits"], ids=lambda case: "-".join(case["answers"]))
def test_ratings_give_the_official_credit_directly_and_as_rewards(case: dict[str, Any]) -> None:
    ratings = [read_rating(answer, "official") for answer in case["answers"]]
    assert ratings == case["ratings"]
    assert rating_credit(ratings) == case["credit"]
    assert best_of_n_credits([ratings]) == [case["credit"]]


def test_ratings_of_four_as_rewards_give_the_same_credit_whatever_they_are() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        ratings = [float(rng.choice([UNREAD, 1, 2, 3, 8.5])) for _ in range(4)]
        assert best_of_n_credits([ratings]) == [rating_credit(ratings)]


@pytest.mark.parametrize("position", range(4))
def test_a_ranking_gives_its_credit_to_the_completion_that_was_shown_at_the_letter(position: int) -> None:
    completions = ("chosen", "first", "second", "third")
    shown = displayed(completions, position)
    assert shown[position] == "chosen" and sorted(shown) == sorted(completions)
    assert [text for text in shown if text not in ("chosen", completions[position])] == [
        text for place, text in enumerate(completions) if place not in (0, position)
    ]
    for verdict in range(4):
        rewards = ranking_rewards(verdict, position)
        assert [text for text, reward in zip(completions, rewards, strict=True) if reward] == [shown[verdict]]
        assert best_of_n_credits([rewards]) == [ranking_credit(verdict, position)] == [float(verdict == position)]


def test_a_ranking_without_a_verdict_is_worth_a_quarter() -> None:
    assert best_of_n_credits([ranking_rewards(None, 2)]) == [ranking_credit(None, 2)] == [0.25]


def test_positions_follow_from_seed_subset_and_id_and_are_all_used() -> None:
    drawn = [position_of("Math", str(number), seed=0) for number in range(400)]
    assert drawn == [position_of("Math", str(number), seed=0) for number in range(400)]
    assert drawn != [position_of("Math", str(number), seed=1) for number in range(400)]
    assert drawn != [position_of("Focus", str(number), seed=0) for number in range(400)]
    assert all(70 <= count <= 130 for count in Counter(drawn).values()) and set(drawn) == {0, 1, 2, 3}


def test_the_ties_score_takes_an_unread_rating_as_minus_one() -> None:
    """By hand: ref gap 9 - -1 = 10; tied gap 8 - 5 = 3, spread 9 - 8 = 1: all accurate and preferred, tanh(3/1 - 1) as margin."""
    rows = [TiesRow("ref:0", 1, [9.0, UNREAD]), TiesRow("tied:0", 2, [9.0, 8.0, 5.0])]
    score = ties_score(rows)
    assert (score.ref_accuracy, score.tied_accuracy, score.correctness_preferred, score.correctness_preferred_hard) == (1, 1, 1, 1)
    assert score.correctness_margin_score == pytest.approx(0.9640275800758169)
    # An unread correct answer is the worst of all: the tied row is lost with it.
    lost = ties_score([TiesRow("ref:0", 1, [9.0, 1.0]), TiesRow("tied:0", 2, [9.0, UNREAD, 5.0])])
    assert (lost.ref_accuracy, lost.tied_accuracy, lost.correctness_preferred) == (1, 0, 0)
