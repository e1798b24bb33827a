"""What servers mean when they refuse, in the words of many of them."""

from __future__ import annotations

import json

import pytest
from chat_server import KEY
from hypothesis import given
from hypothesis import strategies as st

from sarm.judges.questions import Question
from sarm.judges.refusals import LONGEST_WORDS, Told, safe, status_within, told

QUESTION = Question("be short", "what is it?", 50)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "choices", "type", "param", "object", "detail", "metadata"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def of(status: int, message: str, **more: object) -> Told:
    return told(status, {"message": message, **more}, f"Error code: {status}", key=KEY)


@pytest.mark.parametrize(
    ("status", "message", "more"),
    [
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000.",
            {"code": "context_length_exceeded"},
        ),
        (
            400,
            "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens (568 in the messages).",
            {"code": 400},
        ),
        (400, "the request exceeds the available context size, try increasing it", {"type": "exceed_context_size_error"}),
        (500, "the request exceeds the available context size", {}),
        (400, "Illegal param: prefill 744 tokens exceed n_ctx_per_seq, try increasing total context size", {"code": 400}),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", {"type": "invalid_request_error"}),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", {}),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", {}),
        (400, "The input (5000 tokens) is longer than the model's context length (4096 tokens).", {}),
        (400, "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", {"code": "3051"}),
        (413, "Request too large: the prompt is too long", {}),
    ],
)
def test_a_question_beyond_the_context_is_recognised(status: int, message: str, more: dict[str, object]) -> None:
    assert of(status, message, **more).beyond_context


@pytest.mark.parametrize(
    ("status", "message", "more", "wish"),
    [
        (400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
         {"param": "max_tokens", "code": "unsupported_parameter"}, "max_tokens"),
        (400, "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported.",
         {"param": "temperature", "code": "unsupported_value"}, "temperature"),
        (400, "Unsupported parameter: 'temperature' is not supported with this model.", {"code": "unsupported_parameter"}, "temperature"),
        (400, "`temperature` is deprecated for this model.", {"type": "invalid_request_error"}, "temperature"),
        (422, "Input validation error: `temperature` must be strictly positive", {}, "temperature"),
        (400, "System role not supported", {}, "system"),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model.", {"code": "unsupported_value"}, "system"),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it", {}, "system"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/...", {}, "system"),
        (400, "max_tokens is too large: 4096. It supports at most 2048 completion tokens", {"param": "max_tokens", "code": "invalid_value"},
         None),
        (400, "Your credit balance is too low to access the API.", {"type": "invalid_request_error"}, None),
        (404, "The model `temperature-1` does not exist or is not supported", {"code": "model_not_found"}, None),
    ],
)  # fmt: skip
def test_a_wish_that_is_not_taken_is_recognised(status: int, message: str, more: dict[str, object], wish: str | None) -> None:
    said = of(status, message, **more)
    assert said.refuses(QUESTION) == wish and not said.beyond_context
    if wish == "system":
        assert said.refuses(QUESTION._replace(system="")) is None


@pytest.mark.parametrize(
    ("status", "message", "more"),
    [
        (400, "The response was filtered due to the prompt triggering content management policy.", {"code": "content_filter"}),
        (400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", {"code": "invalid_prompt"}),
        (403, "This model requires moderation and your input was flagged for \"violence\".", {"metadata": {"reasons": ["violence"]}}),
        (400, "Input data may contain inappropriate content.", {"code": "data_inspection_failed"}),
    ],
)  # fmt: skip
def test_a_question_that_a_filter_takes_is_recognised(status: int, message: str, more: dict[str, object]) -> None:
    said = of(status, message, **more)
    assert said.filtered and not said.beyond_context and said.refuses(QUESTION) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, 429),
        ({"error": {"code": "429"}}, 429),
        ({"error": {"code": "rate_limit_exceeded"}}, 429),
        ({"error": {"type": "insufficient_quota", "code": None}}, 429),
        ({"error": {"type": "overloaded_error"}}, 503),
        ({"error": {"code": "invalid_api_key"}}, 401),
        ({"error": {"code": "context_length_exceeded"}}, 400),
        ({"error": {"code": 502, "message": "Provider returned error"}, "choices": []}, 502),
        ({"error": "something went wrong"}, 500),
        ({"object": "error", "message": "too long", "code": 40303}, 403),
        ({"object": "error", "message": "busy", "code": 42901}, 429),
        ({"detail": "Not Found"}, 500),
        ({"choices": [{"error": {"code": 502, "message": "cut"}, "finish_reason": "error"}]}, 502),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}, 500),
        ({"choices": [{"message": {"content": "9"}, "finish_reason": "stop"}], "error": None}, 0),
        ({}, 0), ([], 0), ("x", 0), (None, 0), ({"choices": []}, 0),
    ],
)  # fmt: skip
def test_a_200_with_an_error_in_its_body_has_the_code_of_that_error(body: object, status: int) -> None:
    assert status_within(json.dumps(body).encode()) == status


def test_words_are_one_line_without_key_password_and_signs_that_move_a_cursor() -> None:
    said = safe(f"bad\nkey {KEY} \x1b[2J at http://user:hush@host/v1\u202e end " + "x" * 1000, key=KEY)
    assert KEY not in said and "hush" not in said and "\x1b" not in said and "\u202e" not in said and len(said) == LONGEST_WORDS
    assert said.startswith("bad key [key] [2J at http://host/v1 end")


@given(st.integers(0, 999), JSON, st.text(max_size=20))
def test_any_body_gives_words_and_no_failure(status: int, body: object, message: str) -> None:
    said = told(status, body, message, key=KEY)
    assert said.words.isprintable() and len(said.words) <= LONGEST_WORDS
    assert said.refuses(QUESTION) in (None, "temperature", "max_tokens", "system") and said.beyond_context in (True, False)
    code = status_within(json.dumps(body).encode())
    assert code == 0 or 400 <= code < 600


@given(st.binary(max_size=60))
def test_any_bytes_are_no_failure(body: bytes) -> None:
    assert status_within(body) == 0 or 400 <= status_within(body) < 600
