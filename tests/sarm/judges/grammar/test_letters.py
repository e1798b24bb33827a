"""Verdicts: the letter that an answer decides for, or none."""

from __future__ import annotations

import json

import pytest
from folders import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from sarm.judges.verdicts import LETTERS, read_verdict

OFFICIAL: dict[str, str] = json.loads((FIXTURES / "judges.json").read_text(encoding="utf-8"))["verdicts"]
# The official parser takes the first letter of the alphabet, and no spaces.
OFFICIALLY_WRONG = {"[[B]] beats [[A]]": None, "[[A]] is weak, [[C]] it is: [[C]]": "C", "[[ A ]]": "A"}
LETTER = st.sampled_from(LETTERS)
RUBRIC = ", ".join(f'"[[{one}]]" if assistant {one} is best' for one in LETTERS) + "."
PROSE = st.sampled_from(
    [
        "All are fair.",
        "Assistant A is short.",
        "None is perfect; some are wrong.",
        "It is not easy.",
        "**Comparison**",
        "1. A: good",
        "If in doubt, B.",
    ]
)
STATED = st.sampled_from(
    [
        "[[{}]]",
        "**[[{}]]**",
        "[[ {} ]]",
        "[[**{}**]]",
        "\\[\\[{}\\]\\]",
        "Final verdict: [[{}]]",
        "My final verdict is: [[{}]].",
        "`[[{}]]`",
        "Verdict: [[{}]]",
        "So [[{}]]",
        "The best assistant is [[{}]].",
        "### Verdict\n[[{}]]",
        "Therefore, [[{}]]",
        "$\\boxed{{[[{}]]}}$",
    ]
)
OTHERS = st.sampled_from(
    [
        RUBRIC,
        "[[{}]] is weaker.",
        "I weighed [[{}]].",
        "[[{}]] or another?",
        "Compared with [[{}]] it is better.",
        "[[{}]], for one, is wrong.",
    ]
)


def read(answer: str, *, ended: bool = True) -> str | None:
    place = read_verdict(answer, "checked", ended=ended)
    return None if place is None else LETTERS[place]


@pytest.mark.parametrize(("answer", "official"), sorted(OFFICIAL.items()))
def test_ours_and_the_official_reading_are_equal_where_the_official_one_reads_what_is_meant(answer: str, official: str) -> None:
    assert read(answer) == OFFICIALLY_WRONG.get(answer, None if official == "error" else official)


@given(st.lists(PROSE, max_size=3), STATED, LETTER)
def test_the_only_letter_is_the_verdict_for_both(prose: list[str], stated: str, letter: str) -> None:
    answer = "\n".join([*prose, stated.format(letter)])
    assert read(answer) == letter
    if f"[[{letter}]]" in answer:
        assert read_verdict(answer, "official") == LETTERS.index(letter)


@given(st.lists(PROSE, max_size=2), st.lists(st.tuples(OTHERS, LETTER), max_size=3), STATED, LETTER)
def test_of_several_letters_the_one_that_is_said_last_to_be_the_choice_counts(
    prose: list[str], others: list[tuple[str, str]], stated: str, letter: str
) -> None:
    said = [*prose, *(other.format(named) for other, named in others), stated.format(letter)]
    assert read("\n".join(said)) == letter


@given(
    LETTER,
    LETTER,
    st.sampled_from(["[[{}]] beats [[{}]]", "[[{}]] is better than [[{}]].", "[[{}]], not [[{}]]", "I prefer [[{}]] to [[{}]]"]),
)
def test_a_comparison_is_not_read_as_its_loser(winner: str, loser: str, form: str) -> None:
    assert winner == loser or read(form.format(winner, loser)) is None


@pytest.mark.parametrize(
    "answer",
    [
        RUBRIC,
        f"<think>{RUBRIC}",
        "[[A]] is not the best",
        "I cannot choose [[A]]",
        "Both [[A]] and [[B]].",
        "My verdict: [[B]]. Wait, [[A]] is best.",
        "[[E]]",
        "[A]",
        "A",
        "",
        "[[a]]",
        "[[A]] if you insist",
    ],
)
def test_what_is_no_verdict_is_not_read(answer: str) -> None:
    assert read(answer) is None


@given(LETTER, STATED)
def test_neither_a_thought_nor_a_cut_answer_has_a_verdict(letter: str, stated: str) -> None:
    assert read(stated.format(letter), ended=False) is None
    assert read(f"<think>{stated.format(letter)}") is None
    assert read(f"<think>[[A]] or [[B]]</think>{stated.format(letter)}") == letter


@pytest.mark.parametrize("form", [
    "Worst: [[{}]]", "[[{}]] is the worst answer.", "The least helpful answer is [[{}]].", "I reject [[{}]].", "Weakest response: [[{}]]",
    "The loser is [[{}]].", "[[{}]] is rated as the worst", "[[{}]] fails to answer", "I would eliminate [[{}]].",
    "All are fine, but the poorest answer is [[{}]]",
])  # fmt: skip
def test_an_answer_that_is_named_as_the_worst_is_no_choice(form: str) -> None:
    """A letter alone is no vote for it where its own part of the sentence spurns it."""
    for letter in LETTERS:
        assert read(form.format(letter)) is None


@pytest.mark.parametrize("form", [
    "B is the worst, so my verdict is [[{}]]", "Although the others are worse, the best answer is [[{}]].", "[[{}]], since the rest fails.",
    "The worst answers were discarded. Final verdict: [[{}]]", "[[{}]] because the others are inferior",
])  # fmt: skip
def test_what_is_said_of_others_does_not_spurn_a_choice(form: str) -> None:
    for letter in LETTERS:
        assert read(form.format(letter)) == letter
