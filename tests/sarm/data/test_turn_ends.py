"""Which token a reply is scored at, whatever the tokenizer says of eos and pad; and the words of a refusal for whoever asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import save_word_tokenizer

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.preferences import DataError, Message
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem
from sarm.data.turn_ends import IN_PROFILE, IN_PYTHON, ON_COMMAND_LINE

TALK = (Message(role="user", content="how are you?"), Message(role="assistant", content="fine."))
PLAIN = "{% for m in messages %}{{ m.role + ' ' + m.content }}{% endfor %}"
CLOSED = "{% for m in messages %}{{ m.content + '<|eot_id|>' + tail }}{% endfor %}"


def words(folder: Path, template: str, **changes: Any) -> Any:
    save_word_tokenizer(folder, **changes)
    found = load_tokenizer(folder)
    found.chat_template = template
    return found


@pytest.mark.parametrize("eos", ["<|eot_id|>", "<|end_of_text|>", None])
@pytest.mark.parametrize("pad", ["<|eot_id|>", "<|end_of_text|>", None])
def test_the_token_that_closes_a_reply_is_scored_whatever_eos_and_pad_are(eos: str | None, pad: str | None, tmp_path: Path) -> None:
    tokenizer = words(tmp_path / "w", CLOSED.replace("tail", "'\n'"), eos_token=eos, pad_token=pad)
    found = ConversationTokenizer(tokenizer)
    ids = found.encode(TALK, max_length=99).ids
    assert found.end_of_turn_text == "<|eot_id|>" and ids[-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert isinstance(found.pad_id, int)


@given(text=st.text("good bad fine <|eot_id|> <|end_of_text|>", max_size=30))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_reply_says_moves_no_scored_token(text: str, tmp_path: Path) -> None:
    found = ConversationTokenizer(words(tmp_path / "w", CLOSED.replace("tail", "''"), eos_token="<|end_of_text|>"))
    reply = (TALK[0], Message(role="assistant", content=f"{text} <|end_of_text|> {text}"))
    assert found.encode(reply, max_length=999).ids[-1] == found.end_of_turn_id == found.tokenizer.convert_tokens_to_ids("<|eot_id|>")


def test_another_token_or_the_last_one_can_be_named(tmp_path: Path) -> None:
    tokenizer = words(tmp_path / "w", CLOSED.replace("tail", "'<|end_of_text|> on'"))
    whole = ConversationTokenizer(tokenizer, pooling="last_token").encode(TALK, max_length=99).ids
    assert tokenizer.decode(whole[-1:]).strip() == "on"
    tokenizer.chat_template = CLOSED.replace("tail", "'<|end_of_text|>'")
    ids = ConversationTokenizer(tokenizer, end_of_turn="<|end_of_text|>").encode(TALK, max_length=99).ids
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    with pytest.raises(TokenizerProblem, match=r"w: the tokenizer has no token '<end>' to end a turn; give --end-of-turn TOKEN"):
        ConversationTokenizer(tokenizer, end_of_turn="<end>", advice=ON_COMMAND_LINE)


@pytest.mark.parametrize("advice", [IN_PROFILE, ON_COMMAND_LINE, IN_PYTHON])
def test_a_template_without_an_end_asks_for_a_choice_in_the_words_of_who_asked(advice: Any, tmp_path: Path) -> None:
    for changes in ({}, {"eos_token": None}):
        tokenizer = words(tmp_path / "w", PLAIN, **changes)
        with pytest.raises((DataError, TokenizerProblem)) as told:
            ConversationTokenizer(tokenizer, advice=advice).encode(TALK, max_length=99)
        assert str(told.value).endswith(advice.end_of_turn) and ("<slot>" in str(told.value)) == (advice is IN_PROFILE)
        assert ConversationTokenizer(tokenizer, advice=advice, pooling="last_token").encode(TALK, max_length=99).ids
    bare = words(tmp_path / "w", PLAIN)
    bare.chat_template = "{{ strftime_now(messages) }}"
    with pytest.raises(TokenizerProblem) as told:
        ConversationTokenizer(bare, advice=advice).render(TALK)
    assert ("<slot>" in str(told.value)) == (advice is IN_PROFILE)
