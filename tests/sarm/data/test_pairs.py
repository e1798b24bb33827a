"""Pairs as token ids: kept, dropped, cut, counted, split by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import learnable_pairs, pair, save_word_tokenizer, write_rows

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.pairs import encode_pairs, in_validation, read_pairs
from sarm.data.preferences import DataError, Message, Preference
from sarm.data.tokens import ConversationTokenizer

SHORT, LONG = "a dog.", "a dog and a cat and a mat and a dog and a cat and a mat."


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("words")
    save_word_tokenizer(folder)
    return ConversationTokenizer(load_tokenizer(folder))


def test_both_sides_share_the_prompt_and_end_with_the_end_of_turn(conversations: Any) -> None:
    (encoded,), counts = encode_pairs([pair(1)], conversations, max_length=99, overlong="error")
    assert encoded.id == "p1"
    assert encoded.chosen[-1] == encoded.rejected[-1] == conversations.end_of_turn_id
    assert [a == b for a, b in zip(encoded.chosen, encoded.rejected, strict=True)].count(False) == 1
    assert counts == (1, 1, 0, 0, 0, 0)


def test_pair_with_one_long_side_is_dropped_whole_and_counted(conversations: Any) -> None:
    pairs = [pair(1, chosen=SHORT), pair(2, chosen=LONG), pair(3, rejected=LONG)]
    encoded, counts = encode_pairs(pairs, conversations, max_length=24, overlong="drop")
    assert [row.id for row in encoded] == ["p1"]
    assert (counts.read, counts.kept, counts.dropped, counts.truncated) == (3, 1, 2, 0)


def test_long_side_is_cut_on_the_left_and_counted(conversations: Any) -> None:
    encoded, counts = encode_pairs([pair(1), pair(2, chosen=LONG)], conversations, max_length=24, overlong="left")
    assert counts.truncated == 1 and counts.kept == 2
    assert len(encoded[1].chosen) == 24 and encoded[1].chosen[-1] == conversations.end_of_turn_id


def test_long_side_is_refused_by_name(conversations: Any) -> None:
    with pytest.raises(DataError, match=r"pair 'p2': .* tokens exceed max_length = 24 and overlong = 'error'"):
        encode_pairs([pair(1), pair(2, chosen=LONG)], conversations, max_length=24, overlong="error")


def test_pair_with_equal_sides_teaches_nothing_and_is_left_out(conversations: Any) -> None:
    encoded, counts = encode_pairs([pair(1), pair(2, chosen=SHORT, rejected=SHORT)], conversations, max_length=99, overlong="left")
    assert [row.id for row in encoded] == ["p1"] and counts.identical == 1


def test_no_pair_left_is_refused_with_the_reason(conversations: Any) -> None:
    with pytest.raises(DataError, match="no pair is left: 1 too long for max_length = 3, 0 with equal sides"):
        encode_pairs([pair(1)], conversations, max_length=3, overlong="drop")


def test_more_pairs_than_one_portion_keep_their_order(conversations: Any) -> None:
    pairs = learnable_pairs(600)
    encoded, counts = encode_pairs(pairs, conversations, max_length=99, overlong="error")
    assert [row.id for row in encoded] == [one.id for one in pairs] and counts.kept == 600


def test_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    write_rows(tmp_path, "train.jsonl", learnable_pairs(5))
    assert [one.id for one in read_pairs(tmp_path / "train.jsonl")] == ["p0", "p1", "p2", "p3", "p4"]
    assert [one.id for one in read_pairs(tmp_path / "train.jsonl", 2)] == ["p0", "p1"]


def test_row_with_several_replies_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    many = Preference(id="x", prompt=(Message(role="user", content="hi"),), chosen=("a", "b"), rejected=("c",))
    write_rows(tmp_path, "train.jsonl", [many])
    with pytest.raises(DataError, match=r"train\.jsonl: pair 'x': a training pair has one chosen and one rejected reply"):
        read_pairs(tmp_path / "train.jsonl")
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no pair at all"):
        read_pairs(tmp_path / "train.jsonl")


def test_validation_split_goes_by_prompt_so_that_no_prompt_is_on_both_sides() -> None:
    pairs = learnable_pairs(400)
    inside = [in_validation(one, fraction=0.3, seed=0) for one in pairs]
    assert 0.1 < sum(inside) / len(pairs) < 0.5
    twin = pair(9999, prompt=pairs[0].prompt[0].content, chosen="fine.", rejected="awful.")
    assert in_validation(twin, fraction=0.3, seed=0) == inside[0]
    assert inside != [in_validation(one, fraction=0.3, seed=1) for one in pairs]
    assert not any(in_validation(one, fraction=0.0, seed=0) for one in pairs)
