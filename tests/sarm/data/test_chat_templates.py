"""What a chat template may cost is bounded, and one that behaves gives what transformers gives, byte for byte."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny import save_word_tokenizer

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.chat_templates import ChatTemplate, TemplateBeyondLimits, TemplateLimits, TemplateRefusal, template_process
from sarm.data.preferences import Message
from sarm.data.tokens import ConversationTokenizer, as_turns

TALK = (Message(role="user", content="how are you?"), Message(role="assistant", content="fine."))
TALKS = [
    as_turns(TALK),
    as_turns((Message(role="system", content='say "no" & <b>'), *TALK, *TALK)),
    as_turns((Message(role="user", content="é \u2028 \ud800 \x00 漢\r\n"), Message(role="assistant", content="{{ 9 * 9 }} {% raw %}"))),
]
LIMITS = TemplateLimits(seconds=0.5, bytes=1 << 28, characters=1_000_000)
# In the manner of the families' own: their loops, filters, namespaces, macros and tags.
STYLES = {
    "llama3": (
        "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}"
        "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
        "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n' + system + eos_token }}\n"
        "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + eos_token }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
    ),
    "qwen": (
        "{%- set ns = namespace(last=-1) %}\n{%- for m in messages[::-1] %}\n  {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "  {%- if ns.last < 0 and m.role == 'user' and m.content is string %}{%- set ns.last = index %}{%- endif %}\n{%- endfor %}\n"
        "{%- for m in messages %}{%- if loop.index0 > ns.last and m.role == 'assistant' %}{{- '<think>\\n\\n</think>\\n' }}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if tools %}{{- tools | tojson }}{%- endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    ),
    "mistral": (
        "{% macro turn(text) %}[INST] {{ text }} [/INST]{% endmacro %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% if m.role == 'user' %}{{ turn(m.content) }}{% else %}"
        "{% generation %}{{ ' ' + m.content + eos_token }}{% endgeneration %}{% endif %}"
        "{% endfor %}"
    ),
    "json": "{{ messages | tojson(indent=2) }}{% for m in messages %}{{ m.items() | list }} {{ '%s: %d' | format(m.role, 3) }}{% endfor %}",
    "white space": "{% if true %}\n    a\n    {% endif %}\n  {{ messages[0].content }}  \n\n",
}
COSTLY = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops over turns": "{% for a in range(99999) %}{% for m in messages %}{% set x = m.content | upper %}{% endfor %}{% endfor %}" * 99,
    "macros that call twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a large power": "{{ (9 ** (9 ** 9)) > 1 }}",
    "a string product": "{% set x = 'x' * 10 ** 9 %}{{ x | length }}",
    "a padded string": "{{ ('x' | center(10 ** 9)) | length }}{{ '%999999999d' % 1 }}",
    "doubling": "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "a list in itself": "{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
    "output by a loop": "{% for a in range(9999) %}{% for b in range(999) %}{{ messages[0].content }}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 2000000 }}",
}
SAID = r"(took more than (0\.5 s of processor time|256 MiB of memory)|wrote 2,000,002 characters) for row [12]"


def chat(text: str, limits: TemplateLimits = LIMITS) -> ChatTemplate:
    return ChatTemplate("folder", text, {"bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024"}, "mend it", limits)


def by_transformers(tokenizer: Any, template: str, turns: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template, date_string="26 Jul 2024"))


@pytest.mark.parametrize("style", STYLES)
def test_a_template_gives_what_transformers_gives(style: str, tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words")
    tokenizer = load_tokenizer(tmp_path / "words")
    found = ChatTemplate("words", STYLES[style], {**tokenizer.special_tokens_map, "date_string": "26 Jul 2024"}, "").written(TALKS, "abc")
    assert found == [by_transformers(tokenizer, STYLES[style], turns) for turns in TALKS]
    tokenizer.chat_template = STYLES[style]
    ours = ConversationTokenizer(tokenizer, pooling="last_token").render(TALK)
    assert ours == by_transformers(tokenizer, STYLES[style], TALKS[0]).removeprefix(tokenizer.bos_token)


@pytest.mark.parametrize("cost", COSTLY)
def test_a_template_that_takes_too_much_is_refused_in_one_line(cost: str) -> None:
    # The first row behaves: looking at one rendering would show nothing. (What is constant, jinja2 computes when it reads the template.)
    trap = "{% if messages | length > 1 %}" + COSTLY[cost] + "{% endif %}ok"
    began = time.monotonic()
    with pytest.raises(TemplateBeyondLimits, match=rf"^folder: the chat template {SAID}, .*; use another template: mend it$"):
        chat(trap).written([TALKS[0][:1], TALKS[0]], ["row 1", "row 2"])
    assert time.monotonic() - began < 120
    assert chat("{{ messages[0].content }}").written(TALKS[:1], ["row 1"]) == ["how are you?"], "the next template is rendered"


def test_deep_recursion_of_macros_is_a_refusal_with_words() -> None:
    deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"
    (refused,) = chat(deep).written(TALKS[:1], ["row 1"])
    assert isinstance(refused, TemplateRefusal) and "recursion" in str(refused)


def test_what_a_system_does_not_limit_is_limited_by_looking() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateBeyondLimits, match="took more than 1 s for row 1"):
        chat(endless, TemplateLimits(seconds=1000, wall_seconds=1)).written(TALKS[:1], ["row 1"])
    tiny = TemplateLimits(seconds=1000, bytes=1 << 20)
    with pytest.raises(TemplateBeyondLimits, match="took more than 1 MiB of memory for row 1"):
        chat(endless, tiny).written(TALKS[:1], ["row 1"])


def test_threads_and_long_lists_get_their_own_texts() -> None:
    def texts(number: int) -> list[str | TemplateRefusal]:
        rows = [[{"role": "user", "content": f"{number}/{row}"}] for row in range(150)]
        return chat("{{ messages[0].content }}").written(rows, [""] * 150)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(texts, range(20))) == [[f"{number}/{row}" for row in range(150)] for number in range(20)]


def test_the_process_sees_no_secret_and_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    limits = TemplateLimits(seconds=2)
    chat("x", limits).written(TALKS[:1], ["row 1"])
    process = template_process(limits, os.getpid())._process
    assert process and "planted" not in psutil.Process(process.pid).environ().values()
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert chat("x", limits).written(TALKS[:1], ["row 1"]) == ["x"], "one that has ended is started anew"


def test_a_tokenizer_with_such_a_template_is_refused_at_its_first_use(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words")
    tokenizer = load_tokenizer(tmp_path / "words")
    tokenizer.chat_template = "{{ 'x' * 10 ** 11 }}"
    with pytest.raises(TemplateBeyondLimits, match=r"^words: the chat template took more than 1,024 MiB of memory for"):
        ConversationTokenizer(tokenizer).encode(TALK, max_length=99, name="row 7")
