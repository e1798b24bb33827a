"""Raw rows of the public data sets, whole and broken, to our shapes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from folders import DATA

from sarm.data.preferences import DataError, Message
from sarm.data.sources import (
    DivergingHistories,
    EmptyPrompt,
    Place,
    is_evaluation,
    preference_pair,
    rewardbench2_preference,
    rmbench_domain,
    rmbench_preference,
    text_document,
    unrolled,
)

PLACE = Place("data/rows.jsonl", 7)

Row = dict[str, Any]


def real(name: str) -> Path:
    """A real data file; skips the test with the reason where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no data at {path}; set SARM_DATA")
    return path


def rewardbench2_row(**changes: Any) -> Row:
    row = {
        "id": "3",
        "prompt": "How?\n",
        "chosen": ["So."],
        "rejected": ["No.", "", "Maybe."],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["m"] * 4,
        "subset": "Math",
        "additional_metadata": None,
    }
    return {**row, **changes}


def rmbench_row(**changes: Any) -> Row:
    return {"id": 5, "prompt": "How?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], **changes}


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}


def test_a_rewardbench2_row_keeps_its_texts_unchanged() -> None:
    item = rewardbench2_preference(rewardbench2_row(), PLACE)
    assert item.prompt == (Message(role="user", content="How?\n"),)
    assert (item.id, item.subset, item.chosen, item.rejected) == ("3", "Math", ("So.",), ("No.", "", "Maybe."))


def test_a_ties_row_may_have_any_number_of_completions() -> None:
    row = rewardbench2_row(id="tied:4", subset="Ties", chosen=["a", "b"], num_correct=2, total_completions=5)
    assert rewardbench2_preference(row, PLACE).chosen == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"chosen": None}, "chosen"),
        ({"chosen": []}, "chosen"),
        ({"rejected": []}, "rejected"),
        ({"rejected": "No."}, "rejected"),
        ({"rejected": ["No.", None, "x"]}, "rejected"),
        ({"num_correct": 2}, "num_correct"),
        ({"num_incorrect": 1}, "num_incorrect"),
        ({"total_completions": 5}, "total_completions"),
        ({"id": None}, "id"),
        ({"id": ""}, "id"),
        ({"id": "4", "subset": "Ties"}, "id"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"subset": None}, "subset"),
    ],
)
def test_a_broken_rewardbench2_row_is_refused_with_file_row_and_key(changes: Row, key: str) -> None:
    with pytest.raises(DataError, match=rf"^data/rows\.jsonl:7: {key}: \S"):
        rewardbench2_preference(rewardbench2_row(**changes), PLACE)


def test_a_missing_column_is_refused_with_the_columns_that_are_there() -> None:
    row = rewardbench2_row()
    del row["subset"]
    with pytest.raises(DataError, match=r"subset: is missing; the row has: .*total_completions"):
        rewardbench2_preference(row, PLACE)


def test_an_rmbench_item_takes_its_domain_from_the_item_or_the_file() -> None:
    assert rmbench_preference(rmbench_row(domain="safety-refuse"), PLACE).subset == "safety-refuse"
    named = rmbench_preference(rmbench_row(), Place("x/safety-response_filtered.json", 1))
    assert (named.subset, named.id, named.chosen) == ("safety-response", "5", ("a", "b", "c"))
    assert rmbench_domain("total_dataset.json") == ""


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "domain"),
        ({"domain": "poetry"}, "domain"),
        ({"domain": "chat", "chosen": ["a"]}, "chosen"),
        ({"domain": "chat", "id": None}, "id"),
    ],
)
def test_a_broken_rmbench_item_is_refused(changes: Row, key: str) -> None:
    with pytest.raises(DataError, match=f":7: {key}: "):
        rmbench_preference(rmbench_row(**changes), PLACE)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": "Q", "chosen": ["yes"], "rejected": ["no"]},
        {"prompt": [user("Q")], "chosen": "yes", "rejected": "no"},
        {"prompt": [user("Q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        {"prompt": "Q", "chosen": [user("Q"), assistant("yes")], "rejected": [user("Q"), assistant("no")]},
        {"chosen": [user("Q"), assistant("yes")], "rejected": [user("Q"), assistant("no")]},
        {"chosen": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "yes"}], "rejected": [user("Q"), assistant("no")]},
    ],
)
def test_every_common_form_of_a_pair_gives_the_same_preference(row: Row) -> None:
    pair = preference_pair(row, PLACE)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Message(role="user", content="Q"),), ("yes",), ("no",))
    assert pair.id == "rows-7"


def test_the_common_beginning_of_two_conversations_is_the_prompt() -> None:
    start = [{"role": "system", "content": "Be brief."}, user("Q"), assistant("A"), user("R")]
    pair = preference_pair({"chosen": [*start, assistant("x")], "rejected": [*start, assistant("x")], "source": "s", "id": 4}, PLACE)
    assert [message.role for message in pair.prompt] == ["system", "user", "assistant", "user"]
    assert (pair.source, pair.id) == ("s", "4")


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"chosen": [user("Q"), assistant("x")], "rejected": [user("P"), assistant("y")]}, DivergingHistories),
        ({"chosen": [user("Q"), assistant("x")], "rejected": "y"}, DivergingHistories),
        ({"prompt": "P", "chosen": [user("Q"), assistant("x")], "rejected": [user("Q"), assistant("y")]}, DataError),
        ({"prompt": "", "chosen": "x", "rejected": "y"}, EmptyPrompt),
        ({"prompt": [], "chosen": "x", "rejected": "y"}, EmptyPrompt),
        ({"chosen": [user(" "), assistant("x")], "rejected": [user(" "), assistant("y")]}, EmptyPrompt),
        ({"chosen": "x", "rejected": "y"}, DataError),
        ({"prompt": "Q", "chosen": "x"}, DataError),
        ({"prompt": "Q", "chosen": 3, "rejected": "y"}, DataError),
        ({"prompt": "Q", "chosen": [user("x")], "rejected": "y"}, DataError),
        ({"prompt": [user("Q"), assistant("A")], "chosen": "x", "rejected": "y"}, DataError),
        ({"prompt": [{"role": "wizard", "content": "Q"}], "chosen": "x", "rejected": "y"}, DataError),
        ({"prompt": [{"role": "user"}], "chosen": "x", "rejected": "y"}, DataError),
        ({"prompt": [{"role": ["user"], "content": "Q"}], "chosen": "x", "rejected": "y"}, DataError),
        ({"prompt": "Q", "chosen": [user("Q"), {"role": {"name": "assistant"}, "content": "x"}], "rejected": "y"}, DataError),
        ({"prompt": ["Q"], "chosen": "x", "rejected": "y"}, DataError),
    ],
)
def test_a_pair_without_one_prompt_and_two_replies_is_refused(row: Row, error: type[DataError]) -> None:
    with pytest.raises(error, match=r"^data/rows\.jsonl:7: \w"):
        preference_pair(row, PLACE)


def test_text_comes_from_the_column_that_was_asked_for() -> None:
    assert text_document({"body": "words", "source": "s"}, PLACE, column="body").text == "words"
    with pytest.raises(DataError, match="text: is missing; the row has: body"):
        text_document({"body": "words"}, PLACE, column="text")


def test_completions_unroll_item_by_item_chosen_first() -> None:
    items = [rewardbench2_preference(rewardbench2_row(), PLACE), rmbench_preference(rmbench_row(domain="chat"), PLACE)]
    texts = list(unrolled(items))
    assert [text.messages[-1].content for text in texts] == ["So.", "No.", "", "Maybe.", "a", "b", "c", "d", "e", "f"]
    assert {(text.id, text.subset, len(text.messages)) for text in texts} == {("3", "Math", 2), ("5", "chat", 2)}


def test_the_evaluation_rule_reads_the_first_user_turn_without_white_space() -> None:
    for word in ("alpha", "beta", "gamma", "delta", "epsilon"):
        expected = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 5 == 0
        turns = [{"role": "system", "content": "x"}, user(f" {word}\n"), assistant("A"), user("later")]
        assert is_evaluation(preference_pair({"prompt": turns, "chosen": "x", "rejected": "y"}, PLACE)) is expected


def test_every_real_rewardbench2_row_loads() -> None:
    path = real("rewardbench2/safety.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    items = [rewardbench2_preference(row, Place(path.name, number)) for number, row in enumerate(rows, start=1)]
    assert items and {item.subset for item in items} == {"Safety"}
    assert all(len(item.chosen) == 1 and len(item.rejected) == 3 for item in items)


def test_every_real_rmbench_item_loads() -> None:
    paths = sorted(real("rmbench").glob("*.json"))
    assert paths
    for path in paths:
        rows = json.loads(path.read_text(encoding="utf-8"))
        items = [rmbench_preference(row, Place(path.name, number)) for number, row in enumerate(rows, start=1)]
        assert items and all(path.name.startswith(item.subset) for item in items)


def test_every_real_pair_loads_and_the_rule_splits_by_prompt() -> None:
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    with real("preference/pairs.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            first = row["prompt"] if isinstance(row["prompt"], str) else next(t["content"] for t in row["prompt"] if t["role"] == "user")
            held_out = int(hashlib.sha256(first.strip().encode()).hexdigest()[:8], 16) % 5 == 0
            pair = preference_pair(row, Place("pairs.jsonl", number))
            assert is_evaluation(pair) is held_out
            sides[held_out].add(first.strip())
    assert sides[True] and sides[False] and not sides[True] & sides[False]
