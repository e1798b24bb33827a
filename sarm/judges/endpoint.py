"""A judge behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sarm.job import EnvironmentProblem, UsageProblem
from sarm.judges.questions import BYTES_PER_TOKEN, Answer, Question, Usage

# How often an answer that is no chat completion is asked for again.
MALFORMED_TRIES = 3
# A filter that refuses a question, and reasons to end without a word: an answer that says nothing, which asking again would not mend.
FILTERED = ("content_filter", "content_policy_violation")
WORDLESS = ("content_filter", "length")


class EndpointSettings(BaseModel):
    """How an endpoint is reached and how much it may be used: where and how fast, never what is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_base: str = Field(description="URL up to and including the version, as in http://localhost:8000/v1.")
    key_variable: str = Field(default="OPENAI_API_KEY", description="Environment variable with the key; empty for a server without keys.")
    timeout_seconds: float = Field(default=60.0, gt=0, description="Longest wait for a connection or for the next part of an answer.")
    retries: int = Field(default=4, ge=0, description="Further tries after 408, 409, 429, 5xx, a timeout or a lost connection.")
    max_tokens: int = Field(default=2_000_000, ge=1, description="Most tokens in and out, over all calls of the job.")
    input_price: float = Field(default=2.5, ge=0, description="US dollars for a million input tokens.")
    output_price: float = Field(default=10.0, ge=0, description="US dollars for a million output tokens.")
    max_cost: float = Field(default=5.0, ge=0, description="Most US dollars, over all calls of the job.")
    concurrency: int = Field(default=4, ge=1, le=256, description="Most questions under way at once, where a job asks several.")

    @field_validator("api_base")
    @classmethod
    def _is_plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL with http or https; give one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("the URL carries a user, a password or a query; keys belong into the environment only")
        return value

    def cost(self, usage: Usage) -> float:
        """US dollars of some tokens."""
        return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6


def read_settings(path: Path) -> EndpointSettings:
    """Settings from a JSON file. Raises UsageProblem with every key that is wrong, EnvironmentProblem when there is no file."""
    if not path.is_file():
        raise EnvironmentProblem(f"{path.name}: no settings of an endpoint; give --api-base or choose another judge")
    try:
        return EndpointSettings.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        # Values are left out: a URL that is refused for the password in it must not be told.
        wrong = "; ".join(f"{'.'.join(map(str, entry['loc'])) or 'file'}: {entry['msg']}" for entry in error.errors())
        raise UsageProblem(f"settings of the endpoint: {wrong}") from None


class EndpointJudge:
    """A chat endpoint. Retries with exponential backoff, heeding Retry-After up to two minutes, are the openai package's own."""

    def __init__(self, settings: EndpointSettings, *, model: str, temperature: float, max_output_tokens: int) -> None:
        self._settings = settings
        self._model = model
        self._temperature = temperature
        self._max_output_tokens = max_output_tokens
        self._key = os.environ.get(settings.key_variable, "").strip() if settings.key_variable else ""
        if settings.key_variable and not self._key:
            raise EnvironmentProblem(
                f"the environment variable {settings.key_variable} is not set; export it with the key of {settings.api_base}"
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise EnvironmentProblem(f"the environment variable {settings.key_variable} holds no key: it has characters that no key has")
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=settings.api_base, timeout=settings.timeout_seconds, max_retries=settings.retries
        )

    def answer(self, question: Question) -> Answer:
        """One chat completion. Raises EnvironmentProblem when the endpoint fails, UsageProblem when it refuses the request."""
        for _ in range(MALFORMED_TRIES):
            try:
                answer = self._call(question)
            except openai.BadRequestError as error:
                if error.code not in FILTERED:
                    self._explain(error)
                return Answer("", question.estimate(0))
            except openai.OpenAIError as error:
                self._explain(error)
            if answer is not None:
                return answer
        raise EnvironmentProblem(
            f"{self._settings.api_base} answered {MALFORMED_TRIES} times with something that is no chat completion; "
            "is it an OpenAI-compatible endpoint? What was answered before is kept, the same command continues"
        )

    def _call(self, question: Question) -> Answer | None:
        """The completion, or None when what came is none."""
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question.text}]
        if question.system:
            messages.insert(0, {"role": "system", "content": question.system})
        response = self._client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=messages,
            temperature=self._temperature,
            max_tokens=self._max_output_tokens,
        )
        try:
            return _parsed(response.content, question)
        except (KeyError, IndexError, TypeError, ValueError):
            return None

    def _explain(self, error: openai.OpenAIError) -> NoReturn:
        """Raise our error for one of the client's; the more special come first."""
        base, kept = self._settings.api_base, "what was answered so far is kept, the same command continues"
        tries = f"after {self._settings.retries + 1} tries"
        if isinstance(error, openai.APITimeoutError):
            raise EnvironmentProblem(f"{base} gave no answer within {self._settings.timeout_seconds:g} s {tries}; {kept}") from None
        if isinstance(error, openai.APIConnectionError):
            raise EnvironmentProblem(f"{base} cannot be reached {tries}; is the server running and the URL right? {kept}") from None
        if isinstance(error, openai.APIStatusError):
            code, said = error.status_code, self._safe(error.message)
            if code in (401, 403):
                where = f"the key in {self._settings.key_variable}" if self._settings.key_variable else "key_variable (none is sent)"
                raise EnvironmentProblem(f"{base} refuses the key ({code}); check {where}; {kept}") from None
            if code == 429:
                raise EnvironmentProblem(f"{base} still limits the rate or the quota {tries} (429: {said}); wait; {kept}") from None
            if code >= 500 or code in (408, 409):
                raise EnvironmentProblem(f"{base} fails {tries} ({code}: {said}); {kept}") from None
            raise UsageProblem(f"{base} refuses the request for model {self._model!r} ({code}: {said}); check model and URL") from None
        raise EnvironmentProblem(f"{base}: {self._safe(str(error))}; {kept}") from None

    def _safe(self, text: str) -> str:
        """A server's words in one short line, without the key."""
        clean = text.replace(self._key, "[key]") if self._key else text
        return " ".join(clean.split())[:200]


def _parsed(content: bytes, question: Question) -> Answer:
    raw = json.loads(content)
    choice = raw["choices"][0]
    text = choice["message"]["content"]
    if text is None and (choice.get("finish_reason") in WORDLESS or isinstance(choice["message"].get("refusal"), str)):
        text = choice["message"].get("refusal") or ""
    if not isinstance(text, str):
        raise TypeError("the message has no text")
    usage = raw.get("usage") or {}
    guess = question.estimate(math.ceil(len(text.encode()) / BYTES_PER_TOKEN))
    read, written = usage.get("prompt_tokens") or guess.input_tokens, usage.get("completion_tokens") or guess.output_tokens
    return Answer(text, Usage(int(read), int(written)))


