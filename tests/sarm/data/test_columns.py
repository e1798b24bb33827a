"""What stands beside the columns that are read: used, refused by name, or counted; never dropped without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import DATA
from hypothesis import given
from hypothesis import strategies as st
from tiny import job_context

from sarm.config.data import DataConfig
from sarm.data.columns import PART_KEYS, TEXT_COLUMNS, TEXT_KEYS, content_text
from sarm.data.preferences import DataError, Message, Preference, read_jsonl
from sarm.data.sources import READ_COLUMNS, Place, preference_pair, rewardbench2_preference, rmbench_preference, unread_columns
from sarm.job import UsageProblem
from sarm.jobs.data.prepare import prepare_data

PLACE = Place("pairs.jsonl", 1)
PAIR: dict[str, Any] = {"prompt": "why?", "chosen": "because", "rejected": "no"}
BENCHMARK: dict[str, Any] = {"id": "1", "subset": "Math", "domain": "math", "prompt": "why?", "chosen": ["a"] * 3, "rejected": ["b"] * 3}


def prepared(
    folder: Path, rows: list[dict[str, Any]] | dict[str, list[dict[str, Any]]], **fields: Any
) -> tuple[dict[str, Any], list[Preference]]:
    """`counts.json` and the training pairs that come of rows, or of files of rows."""
    source = folder / "source"
    for name, of_file in (rows if isinstance(rows, dict) else {"rows.jsonl": rows}).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("".join(json.dumps(row) + "\n" for row in of_file), encoding="utf-8")
    context = job_context(folder, locations={"source": source})
    prepare_data(DataConfig(**{"shape": "pairs", "origin": "file", "revision": "x", **fields}), context)
    counts = json.loads((context.output / "counts.json").read_text(encoding="utf-8"))
    file = "train.jsonl" if fields.get("shape", "pairs") == "pairs" else ""
    return counts, list(read_jsonl(context.output / file, Preference)) if file else []


@pytest.mark.parametrize("column", sorted(TEXT_COLUMNS - {"system", "system_prompt"}))
@pytest.mark.parametrize("value", ["be brief", ["be brief"], [{"role": "user", "content": "be brief"}], {"text": "be brief"}],
                         ids=["text", "list", "messages", "object"])  # fmt: skip
@pytest.mark.parametrize(("shape", "read", "row"), [
    ("pairs", preference_pair, PAIR), ("rewardbench2", rewardbench2_preference, BENCHMARK), ("rmbench", rmbench_preference, BENCHMARK),
], ids=["pairs", "rewardbench2", "rmbench"])  # fmt: skip
def test_text_beside_the_conversation_is_refused_by_name_and_what_repeats_it_is_counted(
    column: str, value: Any, shape: str, read: Callable[[dict[str, Any], Place], Preference], row: dict[str, Any]
) -> None:
    item = read({**row, column: value}, PLACE)
    with pytest.raises(DataError, match=f"pairs.jsonl:1: {column}: holds text that is not in the conversation"):
        unread_columns({**row, column: value}, item, PLACE, shape=shape, text_column="text")
    for known in ("why?", [], None, {}, [{"role": "user", "content": "why?"}]):
        full = {**row, column: known}
        unread = unread_columns(full, item, PLACE, shape=shape, text_column="text")
        assert (column in unread) == bool(known)


@given(name=st.text(min_size=1, max_size=12), value=st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4))
def test_every_other_column_that_holds_something_is_counted(name: str, value: Any) -> None:
    if name in READ_COLUMNS["pairs"] or name in TEXT_COLUMNS:
        return
    unread = unread_columns({**PAIR, name: value}, preference_pair(PAIR, PLACE), PLACE, shape="pairs", text_column="text")
    assert unread == ([] if value is None or value in ("", []) else [name])


def test_a_system_column_becomes_the_first_turn_and_two_that_differ_are_refused() -> None:
    pair = preference_pair({**PAIR, "system": "be brief"}, PLACE)
    assert [(message.role, message.content) for message in pair.prompt] == [("system", "be brief"), ("user", "why?")]
    own = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    assert preference_pair({**PAIR, "prompt": own, "system": "be brief"}, PLACE).prompt == pair.prompt
    with pytest.raises(DataError, match="system: differs from the system turn"):
        preference_pair({**PAIR, "prompt": own, "system": "be long"}, PLACE)


SYSTEM_FORMS: dict[str, Any] = {
    "text": "be brief",
    "list": ["be brief"],
    "part": {"type": "text", "text": "be brief"},
    "parts": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief", "image_url": None}],
    "message": {"role": "system", "content": "be brief", "name": None},
    "bare message": {"content": "be brief"},
    "ShareGPT": {"from": "system", "value": "be brief"},
    "messages": [{"role": "system", "content": [{"type": "text", "text": "be brief"}]}],
}
NO_SYSTEM_TEXT: dict[str, Any] = {
    "two texts": ["be brief", "be kind"],
    "two messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    "another speaker": {"role": "user", "content": "be brief"},
    "object": {"name": "be brief"},
    "image": [{"type": "image_url", "image_url": {"url": "x"}}],
    "text and image": [{"type": "text", "text": "be brief", "image_url": {"url": "x"}}],
    "message with more": {"role": "system", "content": "be brief", "context": "all of it"},
    "two contents": {"content": "be brief", "value": "be long"},
    "bytes": b"be brief",
}


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize("form", SYSTEM_FORMS)
def test_a_system_column_is_read_in_every_form_of_one_text(column: str, form: str) -> None:
    row = {**PAIR, column: SYSTEM_FORMS[form]}
    pair = preference_pair(row, PLACE)
    assert [(message.role, message.content) for message in pair.prompt] == [("system", "be brief"), ("user", "why?")]
    assert unread_columns(row, pair, PLACE, shape="pairs", text_column="") == []


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize("form", NO_SYSTEM_TEXT)
def test_a_system_column_with_text_in_another_form_is_refused_by_name(column: str, form: str) -> None:
    with pytest.raises(DataError, match=rf"^pairs\.jsonl:1: {column}[:.]") as caught:
        preference_pair({**PAIR, column: NO_SYSTEM_TEXT[form]}, PLACE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, True, {"content": None}, [None], [{"role": "system", "content": ""}]])
def test_a_system_column_without_text_is_counted(value: Any) -> None:
    row = {**PAIR, "system": value}
    pair = preference_pair(row, PLACE)
    assert len(pair.prompt) == 1 and unread_columns(row, pair, PLACE, shape="pairs", text_column="") == ["system"]


def told(row: dict[str, Any]) -> list[str]:
    return unread_columns(row, preference_pair(row, PLACE), PLACE, shape="pairs", text_column="")


@pytest.mark.parametrize(("key", "value"), [
    ("name", "Ann"), ("persona", "pirate"), ("weight", 0), ("id", "m1"), ("tool_call_id", "c1"), ("metadata", {"a": "b"}), ("train", True),
])  # fmt: skip
def test_other_keys_of_messages_are_counted_once_a_row(key: str, value: Any) -> None:
    talk = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because", key: value}]
    assert told({"chosen": talk, "rejected": [talk[0], {"role": "assistant", "content": "no"}]}) == [f"chosen.{key}"]
    assert told({**PAIR, "prompt": [{**talk[0], key: value}, {**talk[1]}, {**talk[0], key: value}]}) == [f"prompt.{key}"]
    assert told({**PAIR, "system": {"role": "system", "content": "be brief", key: value}}) == [f"system.{key}"]
    assert told({**PAIR, "prompt": [{"role": "user", "content": [{"text": "why?", key: value}]}]}) == [f"prompt.content.{key}"]


@pytest.mark.parametrize(("turn", "key"), [
    ({"role": "user", "content": "A", "value": "B"}, "value"),
    ({"role": "user", "from": "gpt", "content": "A"}, "from"),
])  # fmt: skip
def test_two_names_of_one_thing_are_refused_where_they_differ(turn: dict[str, Any], key: str) -> None:
    with pytest.raises(DataError, match=rf"prompt\.0\.{key}: differs from `.*` of the same message"):
        preference_pair({**PAIR, "prompt": [turn]}, PLACE)


@pytest.mark.parametrize("turn", [
    {"role": "user", "content": "why?", "value": "why?"},
    {"role": "user", "content": [{"type": "text", "text": "why?"}], "value": "why?"},
    {"role": "user", "from": "human", "content": "why?"},
    {"role": None, "content": None, "from": "human", "value": "why?"},
    {"role": "", "content": "", "from": "human", "value": "why?"},
])  # fmt: skip
def test_two_names_of_one_thing_may_say_the_same_or_leave_one_empty(turn: dict[str, Any]) -> None:
    assert preference_pair({**PAIR, "prompt": [turn]}, PLACE).prompt == (Message(role="user", content="why?"),)


@pytest.mark.parametrize("key", sorted(PART_KEYS))
@pytest.mark.parametrize("value", ["x", {"url": "x"}, {"bytes": b"x", "path": None}], ids=["text", "object", "bytes"])
def test_a_part_with_text_and_something_else_is_refused_as_a_part_of_another_type(key: str, value: Any) -> None:
    part = {"type": "text", "text": "why?", key: value}
    for row in ({**PAIR, "prompt": [{"role": "user", "content": [part]}]}, {**PAIR, "chosen": [part]}):
        with pytest.raises(DataError, match=f"part 0 holds '{key}' beside its text; a text model reads parts of type 'text' alone"):
            preference_pair(row, PLACE)
    assert content_text([{**part, key: None}]) == content_text([{**part, key: {"url": None}}]) == "why?"


def test_bytes_of_an_image_are_lost_like_its_address() -> None:
    image = {"bytes": b"x", "path": None}
    with pytest.raises(DataError, match=r"prompt\.0\.images: holds text"):
        preference_pair({**PAIR, "prompt": [{"role": "user", "content": "why?", "images": [image]}]}, PLACE)
    with pytest.raises(DataError, match="image: holds text that is not in the conversation"):
        told({**PAIR, "image": image})


@pytest.mark.parametrize("key", sorted(TEXT_KEYS))
def test_text_beside_a_message_is_refused_by_name(key: str) -> None:
    turn = {"role": "user", "content": "why?", key: "something else", "name": None}
    with pytest.raises(DataError, match=rf"prompt\.0\.{key}: holds text that the model would not see"):
        preference_pair({**PAIR, "prompt": [turn]}, PLACE)
    assert preference_pair({**PAIR, "prompt": [{**turn, key: None}]}, PLACE).prompt[0].content == "why?"


def test_text_parts_are_joined_and_other_parts_refused_by_type() -> None:
    parts = [{"type": "text", "text": "why"}, {"type": "text", "text": "?"}]
    assert content_text(parts) == "why?" and Message.model_validate({"role": "user", "content": parts}).content == "why?"
    pair = preference_pair({"prompt": [{"role": "user", "content": parts}], "chosen": parts, "rejected": "no"}, PLACE)
    assert pair.prompt[0].content == "why?" and pair.chosen == ("why?",)
    for part in ({"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}, {"type": "tool_use", "text": "x"}, 3):
        with pytest.raises(ValueError, match="part 1 is of type"):
            content_text([{"type": "text", "text": "why?"}, part])
    with pytest.raises(DataError, match="chosen: is a list of 2 texts"):
        preference_pair({**PAIR, "chosen": ["a", "b"]}, PLACE)


@pytest.mark.parametrize("row", [
    {**PAIR, "rejected": None},
    {**PAIR, "chosen": [{"role": "assistant", "content": None, "tool_calls": []}]},
    {"chosen": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": None}], "rejected": [{"from": "human", "value": "why?"}]},
], ids=["null", "null content", "ShareGPT"])  # fmt: skip
def test_a_null_reply_is_left_out_and_counted(tmp_path: Path, row: dict[str, Any]) -> None:
    counts, pairs = prepared(tmp_path, [PAIR, row])
    assert counts["dropped"] == {"reply is null": 1} and len(pairs) == 1


def test_a_null_prompt_is_an_empty_one_and_a_null_text_an_empty_text(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"rows\.jsonl:2: prompt: is null"):
        prepared(tmp_path / "refused", [PAIR, {**PAIR, "prompt": None}])
    counts, _ = prepared(tmp_path / "skipped", [PAIR, {**PAIR, "prompt": None}], skip_prompts=True)
    assert counts["dropped"] == {"empty prompt": 1}
    counts, _ = prepared(tmp_path / "text", [{"text": "Some words."}, {"text": None}], shape="text")
    assert counts["dropped"] == {"empty text": 1}
    with pytest.raises(UsageProblem, match="text: is missing"):
        prepared(tmp_path / "missing", [{"text": "Some words."}, {"body": "x"}], shape="text")


def test_every_pair_has_an_id_of_its_own_and_equal_ones_are_counted(tmp_path: Path) -> None:
    rows = [{**PAIR, "id": "a"}, {**PAIR, "id": "a", "prompt": "when?"}, {**PAIR, "id": "a#2"}, {**PAIR, "id": "a"}]
    counts, pairs = prepared(tmp_path, rows)
    assert len({pair.id for pair in pairs}) == 4 and pairs[0].id == "a"
    assert (counts["equal_pairs"], counts["repeated_ids"]) == (2, 3)


def test_two_files_of_one_name_give_two_names(tmp_path: Path) -> None:
    counts, pairs = prepared(tmp_path, {"helpful/part.jsonl": [PAIR], "harmless/part.jsonl": [{**PAIR, "prompt": "when?"}]})
    assert [pair.id for pair in pairs] == ["harmless/part-1", "helpful/part-1"]
    assert counts["read_by_file"] == {"harmless/part": 1, "helpful/part": 1} and counts["repeated_ids"] == 0


@pytest.mark.parametrize("names", [("train-00000.jsonl", "train-00001.jsonl"), ("a.jsonl", "b.jsonl"), ("contest.jsonl", "trained.jsonl")])
def test_a_folder_with_one_split_is_read_whole(tmp_path: Path, names: tuple[str, str]) -> None:
    counts, pairs = prepared(tmp_path, {names[0]: [PAIR], names[1]: [{**PAIR, "prompt": "when?"}]})
    assert len(pairs) == 2 and sum(counts["read_by_file"].values()) == 2


@pytest.mark.parametrize(("file", "read", "shape"), [
    ("preference/pairs.jsonl", preference_pair, "pairs"), ("rewardbench2/safety.jsonl", rewardbench2_preference, "rewardbench2"),
])  # fmt: skip
def test_real_rows_are_read_and_what_is_not_read_of_them_is_named(
    file: str, read: Callable[[dict[str, Any], Place], Preference], shape: str
) -> None:
    if not (DATA / file).is_file():
        pytest.skip(f"no data at {DATA / file}; set SARM_DATA")
    with (DATA / file).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(200), strict=False)]
    for number, row in enumerate(rows, start=1):
        place = Place(file, number)
        unread = unread_columns(row, read(row, place), place, shape=shape, text_column="text")
        assert not set(unread) & set(READ_COLUMNS[shape])
