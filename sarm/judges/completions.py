"""A chat completion's bytes to an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sarm.judges.questions import BYTES_PER_TOKEN, ENDED, THOUGHTS_ONLY, WORDLESS, Answer, Question, Usage

# Parts of a content in which a model thinks; and where servers put a model's thoughts beside what it says.
THINKING_PARTS = frozenset(("thinking", "reasoning", "redacted_thinking"))
TEXT_PARTS = frozenset(("text", "output_text"))
BESIDE = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
LONGEST_NAME = 200


def answer_in(content: bytes, question: Question) -> Answer | None:
    """What a completion says; None for what is none.

    A message without a word is an answer that says nothing: its `finish` tells why, `wordless` where the server does not.
    """
    try:
        raw = json.loads(content)
        choice = raw["choices"][0]
        message = choice["message"]
        text, part = _text(message)
        finish = _ending(choice.get("finish_reason"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    if part:
        finish = f"part of type {_line(part)}"
    elif not text.strip() and finish.lower() in ENDED:
        finish = THOUGHTS_ONLY if any(message.get(name) for name in BESIDE) else WORDLESS if message.get("content") is None else finish
    model = raw.get("model")
    return Answer(text, _usage(raw.get("usage"), question, text), finish=finish, model=_line(model) if isinstance(model, str) else "")


def _ending(told: object) -> str:
    """How a server says that an answer ended, empty where it says nothing; what is no text is told as it stands and never an end."""
    if told is None:
        return ""
    return _line(told if isinstance(told, str) else f"finish_reason {json.dumps(told)}")


def _text(message: Mapping[str, Any]) -> tuple[str, str]:
    """The words of a message, and the type of a part that is neither text nor thought. Raises TypeError where it has no text at all."""
    content, refusal = message.get("content"), message.get("refusal")
    if content is None:
        return (_whole(refusal) if isinstance(refusal, str) else ""), ""
    if isinstance(content, str):
        return _whole(content), ""
    if not isinstance(content, list):
        raise TypeError("the content is neither a text nor a list of parts")
    return _joined(content)


def _joined(parts: Sequence[Any]) -> tuple[str, str]:
    texts, other = [], ""
    for part in parts:
        kind = "text" if isinstance(part, str) else str(part.get("type", ""))
        if kind in TEXT_PARTS:
            texts.append(_whole(part if isinstance(part, str) else part["text"]))
        elif kind == "refusal":
            texts.append(_whole(str(part.get("refusal", ""))))
        elif kind not in THINKING_PARTS:
            other = other or kind or "nothing"
    return "".join(texts), other


def _whole(text: str) -> str:
    """A text that can be written: half a surrogate pair becomes the sign for what is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _line(name: str) -> str:
    return " ".join(_whole(name).split())[:LONGEST_NAME]


def _usage(told: object, question: Question, text: str) -> Usage:
    """The tokens that the server counted, thoughts among them; an estimate of what it did not count or counted as nothing."""
    guess = question.estimate(math.ceil(len(text.encode()) / BYTES_PER_TOKEN))
    counts = told if isinstance(told, Mapping) else {}
    read, written, total = (_count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    # Some servers leave thoughts out of `completion_tokens` and count them in the total.
    return Usage(read or guess.input_tokens, max(written, total - read if read else 0) or guess.output_tokens)


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0 else 0
