"""What an endpoint means when it answers with an error: its words, its code, and which of our wishes it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sarm.judges.questions import Question

Wish = Literal["temperature", "max_tokens", "system"]
LONGEST_WORDS = 300
# Codes that say more than a status, of several servers. Some give a word where others give a number.
_CODES = (
    (re.compile(r"rate|quota|too_many|throttl|limit_exceeded"), 429),
    (re.compile(r"overload|unavailable|internal|server_error|timeout|bad_gateway"), 503),
    (re.compile(r"auth|api_key|permission|forbidden|credential"), 401),
    (re.compile(r"billing|payment|credit|insufficient_balance"), 402),
    (re.compile(r"not_found|unknown_model|model_not"), 404),
    (re.compile(r"invalid|unsupported|context|bad_request|content_|policy"), 400),
)
_CONTEXT_CODES = frozenset(
    ("context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "model_context_window_exceeded")
)
_CONTEXT_WORDS = re.compile(
    r"context (?:length|window|size)|context_length|maximum (?:prompt|input|sequence|context|model) length|n_ctx\b|max_model_len"
    r"|(?:prompt|input|messages?|request|text)s? (?:is|are|was) too (?:long|large)|prompt contains \d+ tokens"
    r"|input token count|inputs` tokens \+ `max_new_tokens`|too many (?:input |prompt )?tokens"
    r"|exceeds? the (?:available |model'?s? |maximum )*context|longer than the (?:model'?s? |maximum )*(?:context|input|prompt)",
    re.IGNORECASE,
)
_FILTER_CODES = frozenset(
    ("content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked", "invalid_prompt")
)
_FILTER_WORDS = re.compile(r"\bflagged\b|content (?:management |filter|polic)|safety (?:system|filter)", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"unsupported|not support|n't support|deprecated|only the default|not allowed|must be|not permitted|unrecogni[sz]ed|unknown"
)
_NO_SYSTEM = re.compile(
    r"system (?:role|message|prompt|instruction)s?\b.{0,40}(?:not|n't|un)[ -]?(?:support|allow|enabled)"
    r"|(?:not|n't) support.{0,40}\bsystem\b|developer instruction is not|roles must alternate|'system' (?:role )?is not"
)


class Told(NamedTuple):
    """An error as the endpoint tells it: status, its own code and parameter, and its words in one short line without our key."""

    status: int
    code: str
    parameter: str
    words: str

    @property
    def beyond_context(self) -> bool:
        """Whether the question is longer than the judge can read."""
        if self.code in _CONTEXT_CODES:
            return True
        return self.status not in (401, 402, 404, 429) and "rate_limit" not in self.code and bool(_CONTEXT_WORDS.search(self.words))

    @property
    def filtered(self) -> bool:
        """Whether a filter took the question."""
        return self.code in _FILTER_CODES or (self.status in (400, 403) and bool(_FILTER_WORDS.search(self.words)))

    def refuses(self, question: Question) -> Wish | None:
        """The wish that the endpoint does not know or take, where that is what it refuses."""
        if self.status not in (400, 422, 500):
            return None
        words = self.words.lower()
        if "max_completion_tokens" in words or (self.parameter == "max_tokens" and self.code == "unsupported_parameter"):
            return "max_tokens"
        about = self.parameter == "temperature" or "temperature" in words
        if about and (self.code.startswith("unsupported") or _UNSUPPORTED.search(words)):
            return "temperature"
        return "system" if question.system and _NO_SYSTEM.search(words) else None


def told(status: int, body: object, message: str, *, key: str) -> Told:
    """What an error says; `body` is what the client made of the answer's body, `message` its own words."""
    error = _error_in(body)
    words = _first(error, ("message", "detail", "msg", "error")) if error is not None else ""
    raw = error.get("metadata", {}) if isinstance(error, Mapping) else {}
    more = _first(raw, ("raw", "reasons")) if isinstance(raw, Mapping) else ""
    code = _first(error, ("code", "type")) if isinstance(error, Mapping) else ""
    kind = _first(error, ("type",)) if isinstance(error, Mapping) else ""
    known = next((one for one in (code.lower(), kind.lower()) if one in _CONTEXT_CODES | _FILTER_CODES), code.lower())
    parameter = _first(error, ("param",)) if isinstance(error, Mapping) else ""
    said = " ".join(filter(None, (words or (body if isinstance(body, str) else "") or message, more)))
    return Told(status, known, parameter, safe(said, key=key))


def safe(text: str, *, key: str) -> str:
    """Somebody's words in one short line: without our key, without what a URL may carry, without what moves a terminal's cursor."""
    clean = text.replace(key, "[key]") if key else text
    clean = re.sub(r"//[^/@\s]{1,200}@", "//", clean)
    clean = " ".join("".join(sign if sign.isprintable() else " " for sign in clean[: 20 * LONGEST_WORDS]).split())
    return clean if len(clean) <= LONGEST_WORDS else clean[: LONGEST_WORDS - 1] + "…"


def status_within(body: bytes) -> int:
    """The status that the body of a 200 tells of; 0 where it tells of none. An error without a code counts as one of the server."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return 0
    error = _error_in(raw) if isinstance(raw, Mapping) else None
    if error is None:
        return 0
    codes = [error.get(name) for name in ("code", "status", "type")] if isinstance(error, Mapping) else []
    return next((found for code in codes if (found := _status(code))), 500)


def _status(code: object) -> int:
    """A status for a code: itself, its first three digits (40303), or what its word means; 0 for what means nothing."""
    text = str(code).lower() if isinstance(code, int | str) and not isinstance(code, bool) else ""
    if text.isdecimal() and text.isascii():
        number = int(text[:3])
        return number if len(text) in (3, 5) and 400 <= number < 600 else 0
    return next((status for pattern, status in _CODES if pattern.search(text)), 0)


def _error_in(body: object) -> Mapping[str, Any] | str | None:
    """The error in a body: under `error`, in the first choice, or the body itself where it has no choices."""
    if not isinstance(body, Mapping):
        return body if isinstance(body, str) and body else None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    for found in (body.get("error"), first.get("error")):
        if found and isinstance(found, Mapping | str):
            return found
    if first.get("finish_reason") == "error":
        return "the answer ended in an error"
    is_error = body.get("object") == "error" or (not choices and any(body.get(name) for name in ("message", "detail", "msg")))
    return body if is_error else None


def _first(found: Mapping[str, Any] | str, names: tuple[str, ...]) -> str:
    """The first of some values that says something, as text."""
    if isinstance(found, str):
        return found
    for name in names:
        value = found.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
        if isinstance(value, list | Mapping) and value:
            return json.dumps(value, ensure_ascii=False)[: 4 * LONGEST_WORDS]
    return ""
