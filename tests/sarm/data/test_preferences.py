"""The one shape of comparison data and its JSONL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import pair

from sarm.data.preferences import Conversation, DataError, Message, Preference, ScoredPreference, TextDocument, read_jsonl
from sarm.store.json_lines import write_lines

ROW: dict[str, Any] = {"id": "7", "prompt": [{"role": "user", "content": "hi"}], "chosen": ["a"], "rejected": ["b", "c"]}


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [pair(1), pair(2, chosen="caf\u00e9 \u4f60\u2028line", rejected='"quoted"\n\ttext')]
    assert write_lines(tmp_path / "rows.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "rows.jsonl", Preference)) == rows
    assert "caf\u00e9" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")


def test_rewards_survive_json_to_the_last_digit(tmp_path: Path) -> None:
    scored = ScoredPreference(id="1", chosen_rewards=(0.1 + 0.2,), rejected_rewards=(1e-300, -1 / 3))
    write_lines(tmp_path / "rewards.jsonl", [scored])
    assert list(read_jsonl(tmp_path / "rewards.jsonl", ScoredPreference)) == [scored]


def test_blank_lines_are_skipped_and_do_not_shift_line_numbers(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", "", json.dumps(ROW), "   ", json.dumps({**ROW, "id": 3}))
    rows = read_jsonl(path, Preference)
    assert next(rows).id == "7"
    with pytest.raises(DataError, match=r"rows\.jsonl:4: id: "):
        next(rows)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"chosen": None}, "chosen"),
        ({"chosen": []}, "chosen"),
        ({"rejected": []}, "rejected"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [{"role": "robot", "content": "hi"}]}, "prompt.0.role"),
        ({"chosne": ["a"]}, "chosne"),
    ],
)
def test_wrong_row_is_named_by_file_line_and_key(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    row = {name: value for name, value in {**ROW, **change}.items() if value is not None}
    path = lines(tmp_path / "rows.jsonl", json.dumps(ROW), json.dumps(row))
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: {key}: .*; mend the row or remove it"):
        list(read_jsonl(path, Preference))


def test_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: is no JSON"):
        list(read_jsonl(lines(tmp_path / "rows.jsonl", "{"), Preference))


def test_conversation_must_end_with_the_assistant() -> None:
    user, assistant = Message(role="user", content="hi"), Message(role="assistant", content="ho")
    assert Conversation(messages=(user, assistant)).id == ""
    with pytest.raises(ValidationError, match="the last message must be the assistant's"):
        Conversation(messages=(user, assistant, user))


def test_rows_cannot_be_changed_after_they_are_built() -> None:
    with pytest.raises(ValidationError):
        pair(1).id = "other"  # type: ignore[misc]


def test_documents_may_carry_other_keys() -> None:
    assert TextDocument.model_validate({"text": "x", "url": "y"}) == TextDocument(text="x")
