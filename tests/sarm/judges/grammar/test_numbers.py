"""Ratings: whatever is put together around a number, what is read is the number that is stated, or nothing."""

from __future__ import annotations

import json
import re
import time

import pytest
from folders import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from sarm.judges.verdicts import UNREAD, read_rating

OFFICIAL: dict[str, int] = json.loads((FIXTURES / "judges.json").read_text(encoding="utf-8"))["ratings"]
# What the official parser reads as it is not meant: another number than the one that is stated, or none where one is stated.
OFFICIALLY_WRONG = {
    "Rating: 9/10": 9,
    "8.5": 8.5,
    "**9**": 9,
    "I rate it 7.": 7,
    "3/5": UNREAD,
    "from 7-8": UNREAD,
    "-5": UNREAD,
    "9 out of 10": 9,
    "Score: [[6]]": 6,
    "8,5": UNREAD,
    "7 or 8": UNREAD,
}

# Nothing in these is a rating.
PROSE = st.sampled_from(
    [
        "The response is clear and helpful.",
        "It leaves out a step, but it is right.",
        "Not perfect, yet almost complete.",
        "A fair reply!",
        "It could be better; maybe shorter.",
        "Is it right? Yes.",
        "Strengths: tone, order.",
        "- It answers the question",
    ]
)
TRAPS = st.sampled_from(
    [
        "There are 3 errors in section 2.",
        "The correct answer is 10.",
        "It uses a scale of 1 to 10.",
        "Users gave it 4 of 5 stars.",
        "Points 7-8 are missing.",
        "I was asked to rate from 1 to 10. Point 1: style. Point 2: form.",
        "I would not give it 9.",
        "It solves 9 of 10.",
        "Accuracy: 9",
        "Helpfulness - 7/10",
        "Confidence rating: 9",
        "A rating of 2 would be too low.",
        "See no. 4",
        "| Depth | 6 |",
        "Steps: 1. 2. 3.",
        "**Clarity**: 8",
        "<accuracy>9</accuracy>",
        "~~Rating: 3~~",
        "[[D]] if the last is best.",
        "In 2024 it cost $5 and 7%.",
        "Version 1.2.3 of 10.4",
        "I first thought of giving it a 9.",
    ]
)
LABELS = st.sampled_from(
    [
        "Rating",
        "rating",
        "RATING",
        "Final rating",
        "My final rating",
        "Overall score",
        "Score",
        "The final score",
        "**Rating**",
        "__Score__",
        "### Rating",
        "Rating (1-10)",
        "Rating (out of 10)",
        "Rating on a scale of 1 to 10",
        "[Rating]",
        '"rating"',
        "Final verdict",
        "Judgement",
        "Overall rating",
        "My rating of this response",
        "- Rating",
        "> Rating",
        "| Rating",
        "Rating out of 10",
    ]
)
SIGNS = st.sampled_from([": ", ":", " = ", " - ", " \u2014 ", ":\n", ":\n\n", "\uff1a", " | "])
NUMBERS = st.sampled_from(["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "7.5", "9.0"])
MARKS = st.sampled_from(
    ["{}", "**{}**", "*{}*", "`{}`", "[{}]", "[[{}]]", "({})", "$\\boxed{{{}}}$", "__{}__", "<b>{}</b>", '"{}"', "\\[{}\\]"]
)
SCALES = st.sampled_from(
    [
        "",
        "/10",
        " / 10",
        "/10.0",
        " out of 10",
        " (out of 10)",
        " of 10",
        " out of a possible 10",
        " \u2044 10",
        " (max 10)",
        " on a scale of 1-10",
        " points",
        " points out of a possible 10",
        " (on a scale of 1 to 10)",
        " [1-10]",
        " (10 being the best)",
        " stars out of 10",
    ]
)
OTHER_SCALES = st.sampled_from(
    [
        "/5",
        " of 5",
        " out of 5",
        " (out of 5)",
        "/100",
        " stars",
        " stars of 5",
        " out of a possible 20",
        "%",
        " (max 5)",
        " [1-5]",
        " on a scale of 1 to 5",
        " (scale 1-5)",
        " on a 5-point scale",
        " \u2044 7",
    ]
)
RANGES = st.sampled_from(
    ["{} or {}", "{}-{}", "{} - {}", "{}\u2013{}", "{} to {}", "between {} and {}", "{}/{}", "{}, {}", "{} & {}", "{}~{}"]
)
ENDS = st.sampled_from(
    [
        "",
        ".",
        " ",
        "\n",
        " (very good)",
        ", because it is right",
        "\nConfidence: 9",
        "\n\nConfidence (1-10): 3",
        ". Confidence: 2",
        "\nAccuracy = 4",
        "\n**Confidence**\n9",
        "\n## Confidence\n2",
        "\nIt could be shorter.",
        "\n<confidence>3</confidence>",
        "\n| Confidence | 2 |",
    ]
)
THOUGHTS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</THINK>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<reasoning>", "</reasoning>"),
    ("<unused94>", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]
SOUP = st.lists(
    st.sampled_from(
        [
            *"0123456789.,:;=/-()[]{}*_`~#|<>%$ \n\"'",
            "Rating",
            "score",
            " is ",
            " of ",
            "10",
            " out of ",
            "/10",
            "scale",
            " 1 to 10 ",
            "I give it ",
            "<think>",
            "</think>",
            "Confidence: ",
            "not ",
            " or ",
            "points",
            "\u2028",
            "\u0669",
            "\u00bd",
            "\ue000",
            "\\boxed{",
            "overall ",
        ]
    ),
    max_size=40,
).map("".join)


def read(answer: str) -> float:
    return read_rating(answer, "checked")


@pytest.mark.parametrize(("answer", "official"), sorted(OFFICIAL.items()))
def test_ours_and_the_official_reading_are_equal_where_the_official_one_reads_what_is_meant(answer: str, official: int) -> None:
    assert read(answer) == OFFICIALLY_WRONG.get(answer, official)


@given(
    st.lists(PROSE, max_size=3),
    NUMBERS.filter(lambda one: "." not in one),
    st.sampled_from(["{}", "{}\n", " {} ", "Rating: {}", "Score:{}"]),
)
def test_an_answer_as_it_is_asked_for_is_read_by_both_alike(prose: list[str], number: str, form: str) -> None:
    answer = "\n".join([*prose, "", form.format(number)])
    assert read(answer) == read_rating(answer, "official") == float(number)


@given(st.lists(PROSE, max_size=3), st.tuples(LABELS, SIGNS), NUMBERS, st.tuples(MARKS, SCALES), ENDS)
def test_a_labelled_rating_is_read_in_any_form(
    prose: list[str], lead: tuple[str, str], number: str, form: tuple[str, str], end: str
) -> None:
    (label, sign), (marks, scale) = lead, form
    sign = "\n" if label.startswith("###") else sign
    answer = "\n".join([*prose, f"{label}{sign}{marks.format(number)}{scale}{end}"])
    # A unit inside brackets and marks of its own is more than one form at once.
    if "stars" not in scale or marks == "{}":
        assert read(answer) == float(number), answer


@given(st.lists(st.one_of(PROSE, TRAPS), max_size=5), LABELS, NUMBERS, st.tuples(MARKS, SCALES), st.lists(TRAPS, max_size=2))
def test_no_trap_is_ever_read(traps: list[str], label: str, number: str, form: tuple[str, str], later: list[str]) -> None:
    marks, scale = form
    stated = f"{label}{chr(10) if label.startswith('#') else ': '}{marks.format(number)}{scale}"
    assert read("\n".join([*traps, stated, *later])) in (float(number), UNREAD)
    assert read("\n".join(traps)) == UNREAD


@given(st.lists(PROSE, max_size=2), st.sampled_from(["", "Rating: ", "I give it ", "Score (1-10): "]), NUMBERS, OTHER_SCALES)
def test_another_scale_is_never_taken_as_ours(prose: list[str], lead: str, number: str, scale: str) -> None:
    assert read("\n".join([*prose, f"{lead}{number}{scale}"])) == UNREAD


@given(st.sampled_from(["", "Rating: ", "I give it ", "My rating is "]), RANGES, NUMBERS, NUMBERS)
def test_a_range_is_no_rating(lead: str, form: str, low: str, high: str) -> None:
    own = form == "{}/{}" and high == "10"
    assert read(lead + form.format(low, high)) == (float(low) if own else UNREAD)


@given(NUMBERS, NUMBERS, LABELS, LABELS)
def test_the_last_label_counts(first: str, last: str, one: str, other: str) -> None:
    gap = {True: "\n", False: ": "}
    said = [f"{label}{gap[label.startswith('#')]}{number}" for label, number in ((one, first), (other, last))]
    assert read("\n\n".join(said)) == float(last)


@given(NUMBERS, NUMBERS)
def test_a_number_alone_that_contradicts_a_label_leaves_the_answer_unread(labelled: str, alone: str) -> None:
    expected = float(labelled) if float(labelled) == float(alone) else UNREAD
    assert read(f"Rating: {labelled}\n\n{alone}") == expected


@pytest.mark.parametrize(("begin", "end"), THOUGHTS)
@given(inner=st.one_of(SOUP, NUMBERS, st.just("Rating: 3. From 1 to 10. Point 1: a. Point 2")), number=NUMBERS)
def test_a_thought_is_never_read_and_one_without_an_end_leaves_nothing(begin: str, end: str, inner: str, number: str) -> None:
    inner = re.sub(r"[<>\[\]]", "", inner)
    assert read(f"{begin}{inner}") == read(f"Rating: 2\n{begin}{inner}") == UNREAD
    assert read(f"{begin}{inner}{end}\nRating: {number}") == float(number)
    if "channel" not in begin:
        # The model's template may have opened it.
        assert read(f"{inner}{end}Rating: {number}") == float(number)
        assert read(f"{begin}{inner}{end}") == UNREAD


@given(LABELS, NUMBERS)
def test_an_answer_that_was_cut_has_no_rating(label: str, number: str) -> None:
    assert read_rating(f"{label}: {number}", "checked", ended=False) == UNREAD


@given(SOUP)
def test_no_text_gives_a_number_that_it_does_not_hold(text: str) -> None:
    rating = read(text)
    if rating != UNREAD:
        assert 1 <= rating <= 10
        assert any(float(one) == rating for one in re.findall(r"(?<![0-9.])[0-9]+(?:\.[0-9]+)?(?![0-9])", re.sub(r"[*_`\"\\$~]", "", text)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Rating: 7 (out of 10)", 7),
        ("4 of 10", 4),
        ("3 points out of a possible 10", 3),
        ("8 \u2044 10", 8),
        ("7 (max 10)", 7),
        ("3 stars of 5", UNREAD),
        ("Rating: 8\nConfidence: 9", 8),
        ('{"rating": 8, "confidence": 9}', 8),
        ("Rating: 8 Confidence: 9", 8),
        ("<rating>8</rating><confidence>9</confidence>", 8),
        ("I would give this response a rating of 8 out of 10.", 8),
        ("The response deserves a 7.", 7),
        ("Rating: 8 would be too high", UNREAD),
        ("Rating: 8, maybe 9", UNREAD),
        ("Rating: ~7", UNREAD),
        ("~~7~~ 8", 8),
        ("Rating: 2*4", UNREAD),
        ("Rating: 5\nOn reflection I give it 7.", 7),
        ("Rating: 8\nRevised rating: 7", 7),
        ("Rating: 8\nRating: 6-7", UNREAD),
        ("7\n8", UNREAD),
        ("Confidence\n9", UNREAD),
        ("On a scale of 1 to 5, I give it 4.", UNREAD),
        ("The answer is 10. The response says 12", UNREAD),
        ("I give it credit for solving question 3", UNREAD),
        ("Rating: 9%", UNREAD),
        ("It is a survey on a scale of 1 to 5.\n\nRating: 8", 8),
        ("It is a survey on a scale of 1 to 5.\n\nRating: 4", UNREAD),
        ("Rating: 8 Correction: 7", 7),
        ("analysisRating: 3?assistantfinalRating: 8", 8),
        ("9\n\nBut that is only my view", UNREAD),
    ],
)
def test_forms_seen_in_the_field(answer: str, expected: float) -> None:
    assert read(answer) == expected


@pytest.mark.parametrize(
    "atom", ["#", "*", "1 ", "1, ", "[[", "<think>", "<a>", "rating: ", "overall ", "score: 8 ", "out of ", "(1 ", "<s>", "8\n"]
)
def test_reading_takes_time_in_proportion_to_the_answer(atom: str) -> None:
    def seconds(length: int) -> float:
        """The quickest of five readings: what else the machine does makes some slower and none quicker."""
        text, found = atom * (length // len(atom)) + "!9x", []
        for _ in range(5):
            start = time.process_time()
            read(text)
            found.append(time.process_time() - start)
        return min(found)

    # Twenty times as long: far from the four hundred times of a reading that looks at all pairs of places.
    assert seconds(40_000) < 100 * max(seconds(2_000), 0.002)


@pytest.mark.parametrize("later", [
    " → 6", " ⇒ 6", " -> 6", " (revised: 6)", "; revised: 6", ", final: 6", ", changed to 6", ", now lowered to 6", "; corrected: [6]",
])  # fmt: skip
@pytest.mark.parametrize("label", ["Rating: ", "Final rating: ", "Score = "])
def test_a_number_that_is_taken_back_in_its_line_is_not_read(label: str, later: str) -> None:
    assert read(f"{label}8{later}") in (UNREAD, 6)
    assert read(f"{label}8; confidence: 9") == 8


@pytest.mark.parametrize("later", ["Actually, 6.", "Wait, 6.", "Correction: 6", "On reflection, a 6.", "Revised to 6."])
def test_a_number_that_a_later_line_takes_back_is_not_read(later: str) -> None:
    assert read(f"Rating: 8\n\n{later}") in (UNREAD, 6)
    assert read(f"{later}\n\nRating: 8") == 8
    assert read("Rating: 8\n\nActually, it is a good answer.") == 8
