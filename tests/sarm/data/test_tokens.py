"""Templates, the BOS policy, truncation, masks, sentence enders and batches; with the real Llama-3 tokenizer where it is."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from folders import DATA
from tiny import save_word_tokenizer
from transformers import PreTrainedTokenizerFast

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.harness import HarnessTokenizer
from sarm.data.preferences import DataError, Message
from sarm.data.tokens import (
    ConversationTokenizer,
    TokenizerProblem,
    assistant_mask,
    assistant_start,
    equal_length_batches,
    inner_punctuation_ids,
    sentence_ender_ids,
    token_budget_batches,
)

LLAMA3 = DATA / "tokenizers" / "llama3"
needs_llama3 = pytest.mark.skipif(not LLAMA3.is_dir(), reason=f"no Llama-3 tokenizer in {LLAMA3}; set SARM_DATA")
BOS, END_OF_TURN, PAD = 0, 4, 5
TALK = (Message(role="user", content="how are you?"), Message(role="assistant", content="fine."))


@cache
def llama3() -> Any:
    return load_tokenizer(LLAMA3)


def llama31(**settings: Any) -> ConversationTokenizer:
    """The real tokenizer with the Llama-3.1 template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=llama3().backend_tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=(LLAMA3 / "chat_template_llama3_1.jinja").read_text(encoding="utf-8"),
    )
    return ConversationTokenizer(tokenizer, **settings)


@pytest.fixture
def words(tmp_path: Path) -> Any:
    """The word tokenizer, fresh for each test."""
    save_word_tokenizer(tmp_path / "words")
    return load_tokenizer(tmp_path / "words")


def encode(tokenizer: ConversationTokenizer, *, max_length: int = 99, **how: Any) -> list[int]:
    return tokenizer.encode(TALK, max_length=max_length, **how).ids


@needs_llama3
def test_llama3_sentence_enders_have_the_known_ids() -> None:
    assert sentence_ender_ids(llama3(), "<|eot_id|>") == (30, 13, 26, 0, 949, 662, 2652, 758, 128009)


@needs_llama3
def test_llama3_inner_punctuation_is_single_tokens() -> None:
    ids = inner_punctuation_ids(llama3())
    assert {llama3().decode([token]) for token in ids} == {",", "?", "--", ";", "!", '"', " ,", " ?", " --", " ;", " !", ' "'}
    assert 13 not in ids


@needs_llama3
def test_llama3_conversation_has_a_single_bos_and_ends_with_its_end_of_turn() -> None:
    ids = encode(ConversationTokenizer(llama3()))
    assert ids.count(128000) == 1 and ids[0] == 128000
    assert ids[-1] == 128009
    assert ConversationTokenizer(llama3()).assistant_header() == [128006, 78191, 128007, 271]


@needs_llama3
def test_llama31_default_system_block_is_26_tokens_with_the_pinned_date() -> None:
    ids = encode(llama31(), max_length=999)
    assert ids[25] == 128009 and 128009 not in ids[:25]
    assert ids.count(128000) == 1
    block = llama3().decode(ids[:26])
    assert block == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    )
    assert "Today Date: 01 Jan 2020" in llama3().decode(encode(llama31(date_string="01 Jan 2020"), max_length=999))


@needs_llama3
def test_llama3_literal_bos_in_a_users_text_is_kept() -> None:
    tokenizer = ConversationTokenizer(llama3())
    turn = [Message(role="user", content="what is <|begin_of_text|> for?"), TALK[1]]
    assert "what is <|begin_of_text|> for?" in tokenizer.render(turn)
    ids = tokenizer.encode(turn, max_length=99).ids
    assert ids.count(128000) == 2 and ids[1] != 128000


def test_template_that_asks_for_todays_date_is_given_the_pinned_one(words: Any) -> None:
    # The manner of Llama 3.2: a given date_string wins over the clock.
    words.chat_template = (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
        "{%- endif %}{%- endif %}{{ date_string }}{{ eos_token }}"
    )
    assert ConversationTokenizer(words, date_string="01 Feb 2003").render(TALK) == "01 Feb 2003<|eot_id|>"
    # Others call the clock whatever they are given.
    words.chat_template = (
        "{% if strftime_now is defined %}{{ strftime_now( \"%Y-%m-%d\" ) }} {{ strftime_now('%B') }}{% endif %}{{ eos_token }}"
    )
    assert ConversationTokenizer(words, date_string="01 Feb 2003").render(TALK) == "2003-02-01 February<|eot_id|>"


def test_date_that_cannot_be_pinned_is_refused(words: Any) -> None:
    words.chat_template = "{{ strftime_now('%Y') }}{{ eos_token }}"
    with pytest.raises(TokenizerProblem, match="date_string = 'someday' is not a date like '26 Jul 2024'"):
        ConversationTokenizer(words, date_string="someday").render(TALK)
    words.chat_template = "{% set f = '%Y' %}{{ strftime_now(f) }}{{ eos_token }}"
    with pytest.raises(TokenizerProblem, match="cannot be pinned"):
        ConversationTokenizer(words).render(TALK)


def test_bos_policies_begin_with_one_or_two(words: Any) -> None:
    single = encode(ConversationTokenizer(words))
    assert single[:2] == [BOS, 2] and single[-1] == END_OF_TURN
    for policy in ("double", "double-first-masked"):
        assert encode(ConversationTokenizer(words, bos=policy)) == [BOS, *single]


def test_tokenizer_without_bos_gets_none(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path, bos_token=None)
    assert encode(ConversationTokenizer(load_tokenizer(tmp_path)))[0] != BOS


def test_left_truncation_keeps_the_end_of_turn(words: Any) -> None:
    whole = encode(ConversationTokenizer(words))
    cut = ConversationTokenizer(words).encode(TALK, max_length=5)
    assert cut.truncated and cut.ids == whole[-5:] and cut.ids[-1] == END_OF_TURN
    exact = ConversationTokenizer(words).encode(TALK, max_length=len(whole))
    assert not exact.truncated and exact.ids == whole


def test_right_truncation_is_refused_since_the_end_of_turn_would_be_lost(words: Any) -> None:
    with pytest.raises(DataError, match=r"row 7: 15 tokens exceed max_length = 5 and cutting the right end would lose the end-of-turn"):
        ConversationTokenizer(words).encode(TALK, max_length=5, overlong="right", name="row 7")
    assert encode(ConversationTokenizer(words), overlong="right")[-1] == END_OF_TURN


def test_overlong_conversations_are_dropped_or_refused_on_request(words: Any) -> None:
    assert ConversationTokenizer(words).encode(TALK, max_length=5, overlong="drop") == ([], True)
    with pytest.raises(DataError, match="overlong = 'error'; raise max_length or cut on the left"):
        ConversationTokenizer(words).encode(TALK, max_length=5, overlong="error")


def test_literal_bos_in_a_reply_is_kept(words: Any) -> None:
    turn = [TALK[0], Message(role="assistant", content="<|begin_of_text|> fine.")]
    ids = ConversationTokenizer(words).encode(turn, max_length=99).ids
    assert ids.count(BOS) == 2


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"chat_template": None}, r"no chat template; put chat_template\.jinja into the folder"),
        ({"pad_token": None}, r"no pad token; set pad_token .*backbones\.<slot>\.pad_token"),
        ({"pad_token": "<|eot_id|>"}, "pad equals the end-of-turn token '<|eot_id|>', so pooling would be ambiguous"),
    ],
)
def test_tokenizer_with_which_a_model_cannot_be_trained_is_refused(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    save_word_tokenizer(tmp_path / "mine", **settings)
    if "chat_template" in settings:
        (tmp_path / "mine" / "chat_template.jinja").unlink()
    with pytest.raises(TokenizerProblem, match=complaint) as refusal:
        ConversationTokenizer(load_tokenizer(tmp_path / "mine")).require_padding()
    assert str(refusal.value).startswith("mine: ") and "\n" not in str(refusal.value)


def test_template_that_writes_no_end_of_turn_is_refused(words: Any) -> None:
    words.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"row 3: the template wrote no end-of-turn token '<|eot_id|>'"):
        ConversationTokenizer(words).encode(TALK, max_length=99, name="row 3")


def test_template_that_leaves_the_reply_open_is_refused(words: Any) -> None:
    words.chat_template = "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}{{ eos_token }}{% endif %}{% endfor %}"
    with pytest.raises(DataError, match=r"does not close the last turn with '<|eot_id|>'"):
        ConversationTokenizer(words).encode(TALK, max_length=99)


@needs_llama3
def test_chatml_like_template_pools_at_the_end_of_turn_and_not_at_its_newline() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=llama3().backend_tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=(
            "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '\\n' + m.content + '<|eot_id|>\\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant\\n' }}{% endif %}"
        ),
    )
    conversation = ConversationTokenizer(tokenizer)
    assert conversation.render(TALK).endswith("fine.<|eot_id|>\n")
    ids = conversation.encode(TALK, max_length=99).ids
    assert ids[-1] == 128009 and ids[0] == 128000
    assert assistant_start(ids, conversation.assistant_header()) is not None


def test_many_conversations_encode_as_each_alone(words: Any) -> None:
    tokenizer = ConversationTokenizer(words)
    others = [TALK, [Message(role="system", content="one."), *TALK], [*TALK, *TALK]]
    together = tokenizer.encode_many(others, max_length=20, names=["a", "b", "c"])
    assert together == [tokenizer.encode(turns, max_length=20) for turns in others]
    assert [row.truncated for row in together] == [False, True, True]
    assert tokenizer.encode_many([], max_length=20, names=[]) == []


def test_assistant_mask_covers_the_last_turn_and_its_end(words: Any) -> None:
    tokenizer = ConversationTokenizer(words)
    header = tokenizer.assistant_header()
    ids = tokenizer.encode([*TALK, *TALK], max_length=99).ids
    mask = assistant_mask(ids, header, end_of_turn_id=END_OF_TURN)
    assert [token for token, one in zip(ids, mask, strict=True) if one] == [*words.encode("fine.", add_special_tokens=False), END_OF_TURN]


def test_assistant_mask_without_header_or_end_of_turn_is_refused(words: Any) -> None:
    header = ConversationTokenizer(words).assistant_header()
    with pytest.raises(DataError, match="no assistant header is left"):
        assistant_mask([9, END_OF_TURN], header, end_of_turn_id=END_OF_TURN)
    with pytest.raises(DataError, match="does not end with the end-of-turn token"):
        assistant_mask([*header, 9], header, end_of_turn_id=END_OF_TURN)


def test_template_without_a_generation_prompt_has_no_header(words: Any) -> None:
    words.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    with pytest.raises(TokenizerProblem, match="no generation prompt"):
        ConversationTokenizer(words).assistant_header()


def test_budget_batches_hold_every_index_once_within_the_budget() -> None:
    random.seed(0)
    lengths = [random.randint(1, 60) for _ in range(200)] + [500]
    batches = token_budget_batches(lengths, 128)
    assert sorted(index for batch in batches for index in batch) == list(range(201))
    assert batches[0] == [200], "a row beyond the budget is a batch of its own"
    for batch in batches[1:]:
        assert max(lengths[index] for index in batch) * len(batch) <= 128
        assert lengths[batch[0]] == max(lengths[index] for index in batch)


def test_budget_batches_pad_under_a_tenth_on_realistic_lengths() -> None:
    rng = random.Random(1)
    lengths = [min(2048, int(rng.lognormvariate(5.5, 0.8)) + 20) for _ in range(1500)]
    padded = sum(lengths[batch[0]] * len(batch) for batch in token_budget_batches(lengths, 16384))
    assert 1 - sum(lengths) / padded < 0.1


def test_equal_length_batches_never_pad() -> None:
    lengths = [3, 5, 3, 3, 5, 9, 3]
    batches = list(equal_length_batches(lengths, 10))
    assert batches == [[0, 2, 3], [6], [1, 4], [5]]


def test_no_rows_make_no_batches() -> None:
    assert token_budget_batches([], 8) == [] and list(equal_length_batches([], 8)) == []


@needs_llama3
def test_llama3_files_name_the_special_tokens() -> None:
    settings = json.loads((LLAMA3 / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (llama3().eos_token_id, llama3().pad_token) == (128009, settings["pad_token"])


TURNS = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }}{{ eos_token }}{% endfor %}"
NAMED: dict[str, tuple[Any, dict[str, str]]] = {
    "a list without default": ([{"name": "rlhf", "template": TURNS}, {"name": "tool_use", "template": TURNS}], {}),
    "a list of one": ([{"name": "rlhf", "template": TURNS}], {}),
    "a folder alone": (None, {"rlhf": TURNS}),
}


def with_template(folder: Path, template: Any, additional: dict[str, str]) -> Any:
    """A word tokenizer whose folder holds a template of any type, and more in files of their own."""
    save_word_tokenizer(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    raw = {key: value for key, value in json.loads(path.read_text()).items() if key != "chat_template"}
    path.write_text(json.dumps(raw if template is None else {**raw, "chat_template": template}))
    for name, text in additional.items():
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text)
    return load_tokenizer(folder)


@pytest.mark.parametrize("opened", [ConversationTokenizer, HarnessTokenizer])
@pytest.mark.parametrize("form", NAMED)
def test_templates_of_which_none_is_the_default_are_named(form: str, opened: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerProblem, match=r"^named: chat_template holds .*'rlhf'.* none named 'default'; rename .*, or "):
        opened(with_template(tmp_path / "named", *NAMED[form]))


@pytest.mark.parametrize("value", [5, True, {"default": 5}])
@pytest.mark.parametrize("opened", [ConversationTokenizer, HarnessTokenizer])
def test_template_that_is_no_text_is_refused(value: Any, opened: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerProblem, match=r"^odd: chat_template = (5|True) is no text; "):
        opened(with_template(tmp_path / "odd", value, {}))


def test_the_default_of_several_templates_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TURNS}]
    several = ConversationTokenizer(with_template(tmp_path / "several", named, {}))
    alone = ConversationTokenizer(with_template(tmp_path / "alone", TURNS, {}))
    assert encode(several) == encode(alone)
