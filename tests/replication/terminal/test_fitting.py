"""Text in a width: nothing is wider, nothing is lost that was not told, and no word is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from replication.terminal.fitting import ELLIPSIS, cleaned, longest_part, shortened, width_for, wrapped

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)
PROSE = st.lists(WORDS, max_size=12).map(" ".join)
LATIN = st.lists(st.from_regex(r"[A-Za-z0-9.,±]{1,9}(-[A-Za-z0-9.]{1,9}){0,3}", fullmatch=True), min_size=1, max_size=12).map(" ".join)


def glued(lines: list[str]) -> str:
    """The lines as they were before they broke: after an inner hyphen nothing stood."""
    text = ""
    for line in lines:
        text += line if not text or re.search(r"\w[-/_]$", text) else f" {line}"
    return text


@given(PROSE, st.integers(1, 60), st.one_of(st.none(), st.integers(1, 4)))
def test_no_line_is_wider_than_allowed_whatever_the_text(text: str, width: int, most: int | None) -> None:
    lines = wrapped(text, width, most=most)
    # A sign of two cells does not fit into one: of it nothing is left but the ellipsis.
    assert lines and all(cell_len(line) <= width for line in lines)
    assert most is None or len(lines) <= most
    assert "".join(lines).isprintable()


@given(LATIN, st.integers(1, 60))
def test_where_every_word_fits_nothing_is_lost(text: str, width: int) -> None:
    room = max(width, longest_part(text))
    assert glued(wrapped(text, room)).replace(" ", "") == cleaned(text).replace(" ", "")
    assert ELLIPSIS not in "".join(wrapped(text, room))


@given(LATIN, st.integers(1, 60), st.integers(1, 3))
def test_what_is_shortened_ends_after_a_whole_part_of_a_word(text: str, width: int, most: int) -> None:
    width = max(width, longest_part(text) + 1)
    found = "".join(wrapped(text, width, most=most)).replace(" ", "")
    whole = cleaned(text).replace(" ", "")
    if not found.endswith(ELLIPSIS):
        assert found == whole
        return
    kept = found.removesuffix(ELLIPSIS)
    assert whole.startswith(kept)
    ends = {0}
    for part in re.split(r"(?<=-)|\s", cleaned(text)):
        ends.add(max(ends) + len(part))
    assert len(kept) in ends, "the cut is inside a word"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("Llama-3.1-Tulu-3-8B-RL-RM-RB2", 40, "Llama-3.1-Tulu-3-8B-RL-RM-RB2"),
        ("Llama-3.1-Tulu-3-8B-RL-RM-RB2", 18, "Llama-3.1-Tulu-3-…"),
        ("Bag of words and length", 12, "Bag of…"),
        ("Factuality", 6, "Factu…"),
        ("a learning rate of 4e-06", 20, "a learning rate of…"),
        ("", 5, ""),
    ],
)
def test_a_name_is_shortened_after_a_word_or_a_hyphen(text: str, width: int, shown: str) -> None:
    assert shortened(text, width) == shown


def test_signs_that_steer_a_terminal_become_visible() -> None:
    assert cleaned("red \x1b[31m \u202eright to left\u2069 a\tb\nc \ud800") == "red ?[31m ?right to left? a b c ?"
    assert wrapped("שלום עולם", 5) == ["שלום", "עולם"]


def test_a_width_for_two_lines_is_the_least_one() -> None:
    assert width_for("Bag of words and length", lines=2) == 12
    assert width_for("", lines=2) == 0
