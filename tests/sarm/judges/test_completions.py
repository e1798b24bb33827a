"""What a completion says, in the forms in which servers write it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from chat_server import completion
from hypothesis import given
from hypothesis import strategies as st

from sarm.judges.completions import answer_in
from sarm.judges.questions import Answer, Question, Usage

QUESTION = Question("be short", "what is it?", 50)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "type", "text", "usage", "finish_reason", "prompt_tokens"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


def read(text: Any, **more: Any) -> Answer:
    answer = answer_in(completion(text, **more), QUESTION)
    assert answer is not None
    return answer


def test_a_text_is_taken_as_it_is_with_how_it_ended_and_who_said_it() -> None:
    assert read(" a\n dog", finish="stop", model="toy-1") == Answer(" a\n dog", Usage(10, 5), finish="stop", model="toy-1")
    assert read("a").ended and read("a", finish="STOP").ended and read("a", finish="eos_token").ended
    for finish in ("length", "content_filter", "abort", "max_tokens", "tool_calls", "insufficient_system_resource", "anything new"):
        assert not read("[[A]]", finish=finish).ended


@pytest.mark.parametrize("told", [{"type": "length"}, {"type": "stop"}, ["length"], ["stop"], [], {}, 0, 1, False, True, 1.5])
def test_an_end_that_is_neither_a_text_nor_null_is_none_and_told(told: Any) -> None:
    raw = json.loads(completion("Rating: 8"))
    raw["choices"][0]["finish_reason"] = told
    answer = answer_in(json.dumps(raw).encode(), QUESTION)
    assert answer is not None and not answer.ended and answer.text == "Rating: 8"
    assert answer.finish == f"finish_reason {json.dumps(told)}"
    raw["choices"][0]["finish_reason"] = {"type": "length " * 1000}
    long = answer_in(json.dumps(raw).encode(), QUESTION)
    assert long is not None and len(long.finish) <= 200
    for none in (None, ""):
        raw["choices"][0]["finish_reason"] = none
        believed = answer_in(json.dumps(raw).encode(), QUESTION)
        assert believed is not None and believed.ended and believed.finish == ""


def test_parts_of_text_are_joined_thoughts_left_out_and_others_told() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "3?"}]},
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "8"},
    ]
    assert read(parts) == Answer("It is 8", Usage(10, 5))
    assert read(["a", {"type": "output_text", "text": "b"}]).text == "ab"
    assert read([{"type": "refusal", "refusal": "no"}]).text == "no"
    shown = read([{"type": "text", "text": "8"}, {"type": "image_url", "image_url": {}}])
    assert shown.finish == "part of type image_url" and not shown.ended


@pytest.mark.parametrize(
    ("text", "beside", "finish", "expected"),
    [
        (None, {"reasoning_content": "hm"}, "stop", "thoughts only"),
        ("", {"reasoning": "hm"}, None, "thoughts only"),
        (None, {"reasoning_content": "hm"}, "length", "length"),
        (None, {}, "stop", "wordless"),
        (None, {}, None, "wordless"),
        (None, {"tool_calls": [{}]}, "tool_calls", "tool_calls"),
        (None, {}, "content_filter", "content_filter"),
        ([{"type": "thinking", "thinking": "hm"}], {}, "stop", "stop"),
    ],
)
def test_an_answer_without_a_word_says_why(text: Any, beside: dict[str, Any], finish: str | None, expected: str) -> None:
    answer = read(text, beside=beside, finish=finish)
    assert (answer.text, answer.finish) == ("", expected)


def test_a_refusal_in_words_is_the_answer() -> None:
    assert read(None, beside={"refusal": "I can't."}, finish="stop") == Answer("I can't.", Usage(10, 5), finish="stop")


@pytest.mark.parametrize("body", [b'{"choices": [{"mess', b"<html>", b"[]", b"{}", b'{"choices": []}', b"null", b"\xff", b"[" * 100_000,
                                  completion(3), completion({"text": "a"}), completion([{"type": "text"}]), completion([3])])  # fmt: skip
def test_nonsense_is_no_answer(body: bytes) -> None:
    assert answer_in(body, QUESTION) is None


def test_half_a_surrogate_pair_becomes_a_sign_that_can_be_written() -> None:
    body = completion("x").replace(b'"x"', rb'"bad \ud83d, good \ud83d\ude00"')
    answer = answer_in(body, QUESTION)
    assert answer is not None and answer.text == "bad \ufffd, good \U0001f600" and answer.text.encode()


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 515}, Usage(10, 505)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(10, 5)),
        ({"prompt_tokens": -10, "completion_tokens": -5}, Usage(5, 1)),
        ({"prompt_tokens": True, "completion_tokens": "7"}, Usage(5, 1)),
        ({"prompt_tokens": math.nan, "completion_tokens": math.inf}, Usage(5, 1)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(5, 1)),
        ({}, Usage(5, 1)), (None, Usage(5, 1)), ([], Usage(5, 1)),
    ],
)  # fmt: skip
def test_tokens_are_what_the_server_counted_with_its_thoughts_or_an_estimate(usage: Any, expected: Usage) -> None:
    raw = json.loads(completion("dog"))
    assert answer_in(json.dumps({**raw, "usage": usage}).encode(), QUESTION) == Answer("dog", expected)


def test_a_server_that_counts_too_few_tokens_seems_to_cut_the_question() -> None:
    long = Question("", "word " * 1000, 50)
    assert Answer("a", Usage(400, 1)).looks_cut(long) and not Answer("a", Usage(1000, 1)).looks_cut(long)
    assert not Answer("a", Usage(0, 0)).looks_cut(long)


@given(JSON)
def test_any_body_is_an_answer_or_none(body: object) -> None:
    for raw in (body, {"choices": [body]}, {"choices": [{"message": body}]}, {"choices": [{"message": {"content": body}}], "usage": body}):
        answer = answer_in(json.dumps(raw).encode(), QUESTION)
        if answer is not None:
            assert answer.text.encode() is not None and answer.usage.input_tokens > 0 and answer.usage.output_tokens >= 0
