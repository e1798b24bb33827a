"""Questions to a judge: any OpenAI-compatible chat endpoint or recorded answers, with a log that keeps every answer and a cap.

The key comes from an environment variable and is written nowhere: errors of the client are told in our words with the key struck out,
and are not chained, since tracebacks reach the job's log.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sarm.checksums import sha256_of
from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem

# How often an answer that is no chat completion is asked for again.
MALFORMED_TRIES = 3
# A filter that refuses a question, and reasons to end without a word: an answer that says nothing, which asking again would not mend.
FILTERED = ("content_filter", "content_policy_violation")
WORDLESS = ("content_filter", "length")
# For estimates before the first call: English has about four characters a token.
BYTES_PER_TOKEN = 4


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


class Usage(NamedTuple):
    """Tokens read and written by a judge."""

    input_tokens: int
    output_tokens: int

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class Question(NamedTuple):
    """What a judge is asked, without a system message where `system` is empty; `attempt` counts earlier times of the same question."""

    system: str
    text: str
    attempt: int = 0

    @property
    def key(self) -> str:
        """SHA-256 of system message, text and attempt: under this name an answer is recorded."""
        return hashlib.sha256(json.dumps([self.system, self.text, self.attempt]).encode()).hexdigest()

    def estimate(self, output_tokens: int) -> Usage:
        """Tokens that the question may take, from its bytes."""
        return Usage(math.ceil(len((self.system + self.text).encode()) / BYTES_PER_TOKEN), output_tokens)


class Answer(NamedTuple):
    """What a judge said, and the tokens that it took."""

    text: str
    usage: Usage


class Judge(Protocol):
    """Somebody who answers questions."""

    def answer(self, question: Question) -> Answer:
        """The answer. Raises JobError when there is none."""


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


class RecordedJudge:
    """Answers from a JSON file {question key: text}, as `answers.json` of an earlier run."""

    def __init__(self, path: Path, *, digest: str) -> None:
        if not path.is_file():
            raise EnvironmentProblem(f"{path.name}: no such file of recorded answers")
        if sha256_of(path) != digest:
            raise IntegrityProblem(f"{path.name}: the recorded answers are not those of digest {digest[:12]}; give the file that was meant")
        try:
            answers = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageProblem(f"{path.name}: not JSON ({error})") from error
        if not isinstance(answers, dict) or not all(isinstance(text, str) for text in answers.values()):
            raise UsageProblem(f"{path.name}: recorded answers are one JSON object of question key to text")
        self._name = path.name
        self._answers: dict[str, str] = answers

    def answer(self, question: Question) -> Answer:
        """The recorded answer. Raises UsageProblem when the question was not recorded."""
        if question.key not in self._answers:
            first = question.text.strip().splitlines()[0][:60] if question.text.strip() else ""
            raise UsageProblem(
                f"{self._name} has no answer to question {question.key[:12]} ({first!r}, asked {question.attempt} times before); "
                "record it at an endpoint with the same contexts and settings"
            )
        return Answer(self._answers[question.key], Usage(0, 0))


class AnswerLog:
    """A judge whose every answer is appended to a file at once; a question that is there is not asked again.

    With settings no call is made that may go beyond their caps; answers of earlier attempts at the same job count, and so does what
    other threads are asking: several may ask at once, each a question of its own.
    """

    def __init__(self, judge: Judge, path: Path, *, settings: EndpointSettings | None, max_output_tokens: int) -> None:
        self._judge = judge
        self._path = path
        self._settings = settings
        self._max_output_tokens = max_output_tokens
        self.answers: dict[str, str] = {}
        self.usage = Usage(0, 0)
        self.remembered = 0
        self._under_way = Usage(0, 0)
        self._lock = threading.Lock()
        self._read()

    def remember(self, answers: Mapping[str, str]) -> None:
        """Take over answers (question key -> text) that somebody else has kept."""
        self.answers.update({key: text for key, text in answers.items() if key not in self.answers})

    def _read(self) -> None:
        if not self._path.exists():
            return
        whole = self._path.read_bytes()
        # A line without its end was torn by a kill; the next answer must not be glued to it.
        complete = whole[: whole.rfind(b"\n") + 1]
        if complete != whole:
            self._path.write_bytes(complete)
        for line in complete.decode("utf-8").splitlines():
            row = json.loads(line)
            self.answers[row["question"]] = row["answer"]
            self.usage = self.usage.plus(Usage(row["input_tokens"], row["output_tokens"]))
        self.remembered = len(self.answers)

    def answer(self, question: Question) -> Answer:
        """The remembered answer, or the judge's. Raises UsageProblem at the cap."""
        if question.key in self.answers:
            return Answer(self.answers[question.key], Usage(0, 0))
        most = question.estimate(self._max_output_tokens)
        with self._lock:
            self.check(self._under_way.plus(most), of="the next question")
            self._under_way = self._under_way.plus(most)
        try:
            answer = self._judge.answer(question)
            with self._lock:
                self._keep(question, answer)
        finally:
            with self._lock:
                self._under_way = self._under_way.plus(Usage(-most.input_tokens, -most.output_tokens))
        return answer

    def _keep(self, question: Question, answer: Answer) -> None:
        row = {"question": question.key, "answer": answer.text, **answer.usage._asdict()}
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
            out.flush()
            os.fsync(out.fileno())
        self.answers[question.key] = answer.text
        self.usage = self.usage.plus(answer.usage)

    def check(self, more: Usage, *, of: str) -> None:
        """Raise UsageProblem when `more` tokens on top of those used go beyond a cap."""
        if self._settings is None:
            return
        total = self.usage.plus(more)
        tokens, cost = sum(total), self._settings.cost(total)
        if tokens > self._settings.max_tokens or cost > self._settings.max_cost:
            raise UsageProblem(
                f"with {of} the judge may take {tokens:,} tokens or ${cost:.2f}, above the cap of {self._settings.max_tokens:,} tokens or "
                f"${self._settings.max_cost:.2f}; raise the cap or ask less; what was answered is kept, the same command continues"
            )
