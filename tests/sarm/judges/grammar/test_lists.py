"""Lists of numbers: the whole list in any form, or nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm.explain.prompts import parse_matches

COUNT = 9
CHOSEN = st.sets(st.integers(1, COUNT), min_size=1, max_size=6).map(sorted)
FORMS = st.sampled_from(
    [
        ("{}", ", "),
        ("{}", ","),
        ("{}", "; "),
        ("{}", " "),
        ("[{}]", ", "),
        ("({})", ", "),
        ("**{}**", ", "),
        ("Text {}", ", "),
        ("#{}", ", "),
        ("{} (of dogs)", ", "),
        ("text {}", " and "),
        ("{}", " & "),
        ("`{}`", ", "),
        ("No. {}", "; "),
        ("{} (about cats)", "; "),
        ("{}", " | "),
    ]
)
LABELS = st.sampled_from(
    ["Matches: ", "matches: ", "**Matches:** ", "Matches:\n", "Final matches: ", "The matches: ", "### Matches\n", "Matches = "]
)
ENDS = st.sampled_from(["", ".", "\n", " because they name animals", "\nText 2 is about cars.", ". These name dogs", "\n\nConfidence: 4"])
DOUBTS = st.sampled_from(
    [", maybe 9", "?", " or 9", ", not 9", " (not sure)", "/9", ".5", ", 9 perhaps", " but not 9", ", and possibly 9", "%"]
)
BEFORE = st.sampled_from(
    [
        "",
        "Possible matches: 1, 2, 3?\n",
        "<think>Matches: 1, 2</think>\n",
        "Texts 1 and 2 are near.\n",
        "Not matches: 4\n",
        "Matches: 1\nNo:\n",
        "1, 2\n",
    ]
)


def read(answer: str) -> frozenset[int] | None:
    """The numbers that are named, from 1."""
    places = parse_matches(answer, COUNT)
    return None if places is None else frozenset(place + 1 for place in places)


@given(st.tuples(BEFORE, LABELS, ENDS), CHOSEN, FORMS, st.booleans())
def test_a_list_is_read_whole_in_any_form(around: tuple[str, str, str], chosen: list[int], form: tuple[str, str], last_and: bool) -> None:
    before, label, end = around
    item, between = form
    items = [item.format(number) for number in chosen]
    joined = between.join(items)
    if last_and and len(items) > 2 and between.strip() in {",", ";"}:
        joined = f"{between.join(items[:-1])}{between.rstrip()} and {items[-1]}"
    found = read(f"{before}{label}{joined}{end}")
    # Below a label that stands alone, a line that begins like a number of the list may be one of it.
    assert found == set(chosen) or (label.endswith("\n") and "Text 2" in end and found is None)


@given(LABELS, CHOSEN.filter(lambda one: len(one) > 1), st.sampled_from(["- {}", "{}", "* Text {}", "{}.", "{}) of dogs", "- {}: of dogs"]))
def test_a_list_may_have_a_line_for_each_number(label: str, chosen: list[int], form: str) -> None:
    assert read(label.rstrip() + "\n" + "\n".join(form.format(number) for number in chosen)) == set(chosen)


@given(
    LABELS.filter(lambda one: not one.endswith("\n")),
    CHOSEN,
    st.sampled_from(
        ["{}", "[{}]", "({})", "Text {}", "{} (dogs)", "{}. dogs", "{} - dogs", "{} because of dogs", "- {}", "* Text {}", "{}.", "{},"]
    ),
    st.sampled_from(["\n", "\n\n", "\n---\n"]),
)
def test_a_list_that_begins_behind_its_label_may_go_on_below(label: str, chosen: list[int], form: str, between: str) -> None:
    found = read(label + between.join(form.format(number) for number in chosen))
    # One that ends with a comma, and only that, is cut.
    assert found == (None if form == "{}," and len(chosen) == 1 else set(chosen))


@given(
    LABELS,
    st.sampled_from(["1", "1, 3", "[1]", "Text 1", "1 (dogs)", "1. dogs", "none"]),
    st.sampled_from(
        [
            "Also 4",
            "and 4",
            "4 might match",
            "Text 4 might match",
            "Text 4 is active too",
            "- 4?",
            "4 or 5",
            "[4]?",
            "2 others name dogs",
            "(4 is close)",
            "and\n4",
            "(all of dogs)\n4\n(all of cats)",
            "It talks of dogs\nText 4\nIt talks of cats",
            "(dogs)\n4 (cats)",
            "9-4",
        ]
    ),
)
def test_a_list_of_which_a_part_cannot_be_read_is_not_read(label: str, first: str, more: str) -> None:
    assert read(f"{label}{first}\n{more}") is None


@pytest.mark.parametrize("first", ["1", "1, 3", "[1], [3]", "none"])
def test_numbered_remarks_below_a_list_are_no_part_of_it(first: str) -> None:
    assert read(f"Matches: {first}\n1. Talks of dogs.\n2. Talks of cars.\n3. Talks of cats.") is None
    listed = {int(one) for one in re.findall("[0-9]", first)}
    assert read(f"Matches: {first}\nReasons:\n1. Talks of dogs.\n2. Talks of cars.") == listed
    assert read("Matches: 1, 3\n1: names dogs\n3: names cats") == {1, 3}


@given(LABELS, st.integers(1, COUNT), st.integers(1, COUNT), st.sampled_from(["{}-{}", "{} - {}", "{}\u2013{}", "{} to {}", "[{}-{}]"]))
def test_a_range_stands_for_all_between_its_ends(label: str, low: int, high: int, form: str) -> None:
    assert read(label + form.format(low, high)) == (set(range(low, high + 1)) if low <= high else None)


@given(BEFORE, LABELS, CHOSEN, FORMS, DOUBTS)
def test_a_list_with_a_doubt_is_not_read(before: str, label: str, chosen: list[int], form: tuple[str, str], doubt: str) -> None:
    item, between = form
    assert read(f"{before}{label}{between.join(item.format(number) for number in chosen)}{doubt}") is None


@given(CHOSEN, CHOSEN)
def test_the_last_list_counts(first: list[int], last: list[int]) -> None:
    assert read(f"Matches: {', '.join(map(str, first))}\nMatches: {', '.join(map(str, last))}") == set(last)


@given(CHOSEN)
def test_neither_a_thought_nor_a_cut_answer_has_a_list(chosen: list[int]) -> None:
    text = f"Matches: {', '.join(map(str, chosen))}"
    assert read(f"<think>{text}") is None and parse_matches(text, COUNT, ended=False) is None
    assert read(f"<think>Matches: 1, 2, 3</think>{text}") == set(chosen)


@given(
    st.lists(
        st.sampled_from([*"0123456789,;:-/()[]*. \n", "Matches:", " and ", " to ", "none", "text ", "not ", "(dogs)"]), max_size=25
    ).map("".join)
)
def test_no_text_gives_a_number_that_it_does_not_hold(text: str) -> None:
    found = read(text)
    stated = {int(one) for one in re.findall(r"[0-9]+", text)}
    ranges = re.search(r"[0-9][\])]* ?(?:-|to) ?[0-9]", text.replace("*", ""))
    assert found is None or ranges or found <= stated


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Matches: 1, 3, and 5", {1, 3, 5}),
        ("Matches: 1-3", {1, 2, 3}),
        ("Matches: 1; 3", {1, 3}),
        ("Matches: [1], [3]", {1, 3}),
        ("Matches: 1 (dogs), 3 (cats)", {1, 3}),
        ("Possible matches: 1, 2, 3?\nMatches: 2", {2}),
        ("Possible matches: 1, 2, 3?", None),
        ("Matches: none", set()),
        ("Matches: None of them.", set()),
        ("Matches: [None]", set()),
        ("Matches: none except 3", None),
        ("Matches: none, but I am not sure", None),
        ("Matches: all", None),
        ("Matches: 1 - 3, 12", None),
        ("Matches: 0", None),
        ("Matches:", None),
        ("1 and 3", None),
        ("There are no matches: 1", None),
    ],
)
def test_forms_seen_in_the_field(answer: str, expected: set[int] | None) -> None:
    assert read(answer) == expected
