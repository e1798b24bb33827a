"""Chat templates that refuse a conversation: the row and the template's words in one line, or the pair left out and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_word_tokenizer

from sarm.checkpoints.backbones import load_tokenizer
from sarm.config.related import HarvestConfig
from sarm.data.harness import HarnessTokenizer
from sarm.data.pairs import encode_pairs
from sarm.data.preferences import DataError, Message, Preference
from sarm.data.tokens import ConversationTokenizer, not_written

SYSTEM, USER = Message(role="system", content="hi"), Message(role="user", content="hi")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
UNEXPECTED = "{% for m in messages %}{{ m['tool'].name + m['role'] }}{% endfor %}"
RULES = {
    "no system": (NO_SYSTEM, (SYSTEM, USER), "System role"),
    "alternate": (ALTERNATE, (USER, USER), "roles must alternate"),
    "not expected": (UNEXPECTED, (USER,), "tool"),
}


DEAF = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
SHY = "{% for m in messages %}{{ m['role'] + ' ' + m['content'].split('</think>')[-1].strip() + '<|eot_id|>' }}{% endfor %}"


@pytest.fixture(params=RULES)
def refusing(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ConversationTokenizer, HarnessTokenizer, tuple[Message, ...], str]:
    save_word_tokenizer(tmp_path / "words")
    tokenizer = load_tokenizer(tmp_path / "words")
    rule, prompt, said = RULES[request.param]
    tokenizer.chat_template = rule + tokenizer.chat_template
    return ConversationTokenizer(tokenizer), HarnessTokenizer(tokenizer), prompt, said


Refusing = tuple[ConversationTokenizer, HarnessTokenizer, tuple[Message, ...], str]


def test_the_row_and_the_templates_words_are_told_in_one_line(refusing: Refusing) -> None:
    tokenizer, harness, prompt, said = refusing
    turns = [[*prompt, Message(role="assistant", content="ho")]]
    for encode in (tokenizer.encode_many, harness.encode_many):
        with pytest.raises(DataError, match=rf"row 3: the chat template refuses it: .*{said}.*; mend the turns") as caught:
            encode(turns, max_length=20, overlong="left", names=["row 3"])
        assert "\n" not in str(caught.value)


def test_refused_pairs_are_left_out_and_counted(refusing: Refusing) -> None:
    tokenizer, _, prompt, said = refusing
    pair = Preference(id="a", prompt=prompt, chosen=("good",), rejected=("bad",))
    with pytest.raises(DataError, match=f"pair 'a': the chat template refuses it: .*{said}"):
        encode_pairs([pair], tokenizer, max_length=20, overlong="left")
    with pytest.raises(DataError, match="1 refused by the chat template"):
        encode_pairs([pair], tokenizer, max_length=20, overlong="left", refused_turns="drop")


def test_the_others_are_kept_and_know_their_own_place(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words")
    tokenizer = load_tokenizer(tmp_path / "words")
    tokenizer.chat_template = RULES["no system"][0] + tokenizer.chat_template
    prompts = {"a": (SYSTEM, USER), "b": (USER,)}
    pairs = [Preference(id=name, prompt=prompt, chosen=("good",), rejected=("bad",)) for name, prompt in prompts.items()]
    encoded, counts = encode_pairs(pairs, ConversationTokenizer(tokenizer), max_length=20, overlong="left", refused_turns="drop")
    assert [(one.id, one.place) for one in encoded] == [("b", 1)]
    assert counts == (2, 1, 0, 0, 0, 1)


def test_a_benchmark_needs_every_reply() -> None:
    with pytest.raises(ValueError, match="refused_turns = 'drop' is for training pairs"):
        HarvestConfig(layer=1, items="rmbench", refused_turns="drop")


@pytest.mark.parametrize("template", [DEAF + SHY, SHY], ids=["leaves a role out", "changes a turn"])
@pytest.mark.parametrize("kind", [ConversationTokenizer, HarnessTokenizer])
def test_turns_that_a_template_does_not_write_are_counted_by_role(
    tmp_path: Path, template: str, kind: type[ConversationTokenizer | HarnessTokenizer]
) -> None:
    save_word_tokenizer(tmp_path / "words")
    loaded = load_tokenizer(tmp_path / "words")
    loaded.chat_template = template
    tokenizer = kind(loaded)
    thought = Message(role="assistant", content="<think>so</think> good")
    rows = [[Message(role="system", content="be kind"), USER, thought], [USER, Message(role="assistant", content=" a dog\n")]]
    tokenizer.encode_many(rows, max_length=40, overlong="left", names=["first", "second"])
    expected = {"assistant": 1, "system": 1} if template.startswith(DEAF) else {"assistant": 1}
    assert not_written(tokenizer.unwritten) == {"turns_not_written": expected}
    plain = kind(loaded)
    plain.encode_many(rows[1:], max_length=40, overlong="left", names=["second"])
    assert not_written(plain.unwritten) == {}
