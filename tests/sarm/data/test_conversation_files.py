"""Files of conversations as other tools write them: read, or refused in one line that names the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sarm.data.preferences import DataError, Message, read_conversations

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
