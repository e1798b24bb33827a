"""Files of conversations as other tools write them: read, or refused in one line that names the line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sarm.data.columns import REPLY_COLUMNS, TEXT_COLUMNS, TEXT_KEYS
from sarm.data.preferences import DataError, Message, read_conversations
from sarm.data.sources import Place, preference_pair

TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]


def test_lines_keep_their_own_numbers_and_whole_numbers_are_names(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    first, second = json.dumps({"id": 7, "messages": TURNS}), json.dumps({"messages": TURNS, "id": None})
    path.write_text(f"\ufeff\n\n{first}\n\n{second}", encoding="utf-8")
    assert [(number, one.id) for number, one in read_conversations(path)] == [(3, "7"), (5, "")]
    path.write_text(json.dumps([{"messages": TURNS}] * 2), encoding="utf-8")
    assert [number for number, _ in read_conversations(path)] == [1, 2]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]", "\ufeff".encode()])
def test_a_file_without_conversations_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"c\.jsonl: holds no conversation"):
        read_conversations(tmp_path / "c.jsonl")


@pytest.mark.parametrize(("row", "said"), [
    ({"messages": TURNS, "system": "be brief"}, ":1: system: holds text that is not in `messages`"),
    ({"messages": TURNS, "tools": [{"name": "search"}]}, ":1: tools: holds text"),
    ({"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"id": "1"}]}]}, ":1: messages.1.tool_calls: "),
    ({"messages": [TURNS[0], {"role": "assistant", "content": None}]}, ":1: messages.1.content: is null"),
    ({"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "image_url"}]}]}, "part 0 is of type 'image_url'"),
], ids=["system", "tools", "tool call", "null", "image"])  # fmt: skip
def test_what_the_model_would_not_see_is_refused_by_name(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read_conversations(tmp_path / "c.jsonl")
    assert "\n" not in str(caught.value)


def test_empty_leftovers_of_other_tools_are_harmless(tmp_path: Path) -> None:
    leftovers = {"name": None, "tool_calls": [], "refusal": None, "weight": ""}
    assert Message.model_validate({**TURNS[0], **leftovers}) == Message.model_validate(TURNS[0])
    (tmp_path / "c.jsonl").write_text(json.dumps({"messages": [{**turn, **leftovers} for turn in TURNS], "tools": [], "source": "x"}))
    assert len(read_conversations(tmp_path / "c.jsonl")) == 1


def read(path: Path, *rows: dict[str, Any]) -> tuple[list[tuple[Message, ...]], dict[str, int]]:
    """The messages of a file of these rows, and what was not read of them."""
    unread = Counter[str]()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [one.messages for _, one in read_conversations(path, unread)], dict(unread)


@pytest.mark.parametrize("column", sorted((REPLY_COLUMNS | TEXT_COLUMNS) - {"messages"}))
@pytest.mark.parametrize("form", ["text", "list", "message"])
def test_a_column_with_another_reply_or_prompt_is_refused_and_one_that_repeats_it_is_counted(
    tmp_path: Path, column: str, form: str
) -> None:
    def given(text: str) -> Any:
        return {"text": text, "list": [text], "message": [{"role": "assistant", "content": text}]}[form]

    with pytest.raises(DataError, match=rf"c\.jsonl:2: {column}: holds text that is not in `messages`"):
        read(tmp_path / "c.jsonl", {"messages": TURNS}, {"messages": TURNS, column: given("some other answer")})
    rows = [{"messages": TURNS, column: given("because")}, {"messages": TURNS, column: None}, {"messages": TURNS, column: given("why?")}]
    assert read(tmp_path / "c.jsonl", *rows)[1] == {column: 2}


def test_other_columns_and_keys_are_counted_by_row(tmp_path: Path) -> None:
    turn = {**TURNS[0], "name": "Ann", "weight": 0}
    talk = [turn, TURNS[1], turn, {**TURNS[1], "content": [{"type": "text", "text": "because", "cache_control": {"type": "x"}}]}]
    messages, unread = read(
        tmp_path / "c.jsonl", {"id": "a", "messages": talk, "persona": "pirate", "answer": 4}, {"messages": talk}, {"messages": TURNS}
    )
    assert unread == {"persona": 1, "answer": 1, "messages.name": 2, "messages.weight": 2, "messages.content.cache_control": 2}
    assert messages[0] == messages[1] == (*messages[2], *messages[2])


MORE_IN_A_TURN: list[dict[str, Any]] = [
    *({key: "something else"} for key in sorted(TEXT_KEYS)),
    {"name": "Ann"}, {"persona": "pirate"}, {"weight": 0}, {"value": "other"}, {"value": "why?"}, {"from": "human"}, {"from": "gpt"},
    {"content": None, "value": "why?"}, {"role": None, "from": "human"}, {"content": None},
    {"content": [{"type": "text", "text": "why?", "image_url": "x"}]}, {"content": [{"type": "text", "text": "why?", "index": 1}]},
]  # fmt: skip


@pytest.mark.parametrize("more", MORE_IN_A_TURN, ids=str)
def test_conversations_and_pairs_have_one_rule_for_a_message(tmp_path: Path, more: dict[str, Any]) -> None:
    turn = {**TURNS[0], **more}
    said: list[Any] = []
    for one in (
        lambda: preference_pair({"prompt": [turn], "chosen": "a", "rejected": "b"}, Place("c", 1)).prompt,
        lambda: read(tmp_path / "c.jsonl", {"messages": [turn, TURNS[1]]})[0][0][:1],
    ):
        try:
            said.append(one())
        except DataError as problem:
            said.append(str(problem).split(": ", 1)[1].replace("prompt.", "messages.").removesuffix(" or remove it"))
    assert said[0] == said[1] or (isinstance(said[0], str) and isinstance(said[1], str) and said[0].split(";")[0] == said[1].split(";")[0])


def test_lines_of_sharegpt_turns_are_conversations_too(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "because"}]
    assert read(tmp_path / "c.jsonl", {"messages": turns}) == read(tmp_path / "c.jsonl", {"messages": TURNS})
