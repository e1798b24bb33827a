"""A judge behind any OpenAI-compatible chat endpoint."""

from __future__ import annotations

import os
import threading
from typing import Any, NoReturn
from urllib.parse import urlsplit

import openai

from sarm.job import EnvironmentProblem, JobError, UsageProblem
from sarm.judges.completions import answer_in
from sarm.judges.connection import connection, proxies_of
from sarm.judges.questions import CONTEXT, FILTERED, WORDLESS, Answer, Question, QuestionFailed, QuestionRefused, QuestionUnheard, Usage
from sarm.judges.refusals import Told, Wish, safe, told
from sarm.judges.settings import EndpointSettings

# How often an answer that is no chat completion, or has no word, is asked for again.
MALFORMED_TRIES = 3
KEPT = "what was answered so far is kept, the same command continues"


class EndpointJudge:
    """A chat endpoint. Retries with exponential backoff, heeding Retry-After up to two minutes, are the openai package's own.

    A wish that the endpoint does not take (`temperature`, `max_tokens`, a system message) is left out from then on, and every answer
    says so.
    """

    def __init__(self, settings: EndpointSettings, *, model: str, temperature: float) -> None:
        self._settings = settings
        self._model = model
        self._temperature = temperature
        self._key = os.environ.get(settings.key_variable, "").strip() if settings.key_variable else ""
        if settings.key_variable and not self._key:
            raise EnvironmentProblem(
                f"the environment variable {settings.key_variable} is not set; export it with the key of {settings.api_base}"
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise EnvironmentProblem(f"the environment variable {settings.key_variable} holds no key: it has characters that no key has")
        self._without: frozenset[Wish] = frozenset()
        self._lock = threading.Lock()
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=settings.api_base,
            timeout=settings.timeout_seconds,
            max_retries=settings.retries,
            http_client=connection(settings, self._key),
        )

    def answer(self, question: Question) -> Answer:
        """One chat completion; one without a word where the question is beyond the judge's context, filtered, or answered by nothing.

        Raises QuestionRefused and QuestionFailed where only this question has no answer, EnvironmentProblem when the endpoint fails,
        UsageProblem when it refuses every request.
        """
        used, wordless, tries = Usage(0, 0), None, 0
        while tries < MALFORMED_TRIES:
            without = self._without
            try:
                answer = self._call(question, without)
            except openai.APIStatusError as error:
                said = told(error.status_code, error.body, error.message, key=self._key)
                if self._leaves_out(said.refuses(question), without):
                    continue
                return self._unread(question, said) or self._raise_status(question, said, error)
            except openai.OpenAIError as error:
                self._raise_lost(question, error)
            tries += 1
            if answer is not None:
                used = used.plus(answer.usage)
                left_out = tuple(sorted(wish for wish in without if wish != "system" or question.system))
                wordless = answer._replace(usage=used, address=self._settings.address, without=left_out)
                if answer.finish != WORDLESS:
                    return wordless
        if wordless is not None:
            return wordless
        raise QuestionUnheard(
            f"{self._about(question)}{self._settings.api_base} answered {MALFORMED_TRIES} times with something that is no chat completion; "
            f"is it an OpenAI-compatible endpoint? {KEPT}"
        )

    def _call(self, question: Question, without: frozenset[Wish]) -> Answer | None:
        """The completion, or None when what came is none."""
        merged = question.system and "system" in without
        messages: list[dict[str, str]] = [{"role": "user", "content": f"{question.system}\n\n{question.text}" if merged else question.text}]
        if question.system and not merged:
            messages.insert(0, {"role": "system", "content": question.system})
        wishes: dict[str, Any] = {"max_completion_tokens" if "max_tokens" in without else "max_tokens": question.longest}
        wishes |= {} if "temperature" in without else {"temperature": self._temperature}
        ask: Any = self._client.chat.completions.with_raw_response.create
        response = ask(model=self._model, messages=messages, **wishes)
        return answer_in(response.content, question)

    def _leaves_out(self, wish: Wish | None, sent_without: frozenset[Wish]) -> bool:
        """Whether to ask again without a wish: not where the question that was refused did not hold it."""
        if wish is None or wish in sent_without:
            return False
        with self._lock:
            self._without |= {wish}
        return True

    def _unread(self, question: Question, said: Told) -> Answer | None:
        """An answer that says nothing, for a question that asking again would not mend."""
        if not (said.beyond_context or said.filtered):
            return None
        finish, usage = (CONTEXT, Usage(0, 0)) if said.beyond_context else (FILTERED, question.estimate(0))
        return Answer("", usage, finish=finish, address=self._settings.address, note=f"{said.status}: {said.words}")

    def _raise_lost(self, question: Question, error: openai.OpenAIError) -> NoReturn:
        """Raise our error for one of the client's in which the endpoint said nothing."""
        base, tries = self._settings.api_base, f"after {self._settings.retries + 1} tries"
        cause = safe(str(error.__cause__ or ""), key=self._key)
        if isinstance(error, openai.APITimeoutError):
            late = f"gave no answer within {self._settings.timeout_seconds:g} s {tries}"
            raise QuestionUnheard(f"{self._about(question)}{base} {late}; {KEPT}") from None
        if isinstance(error, openai.APIConnectionError):
            proxies = proxies_of(urlsplit(base).hostname or "")
            through = f" through the proxy of {', '.join(proxies)}" if proxies else ""
            why = f" ({cause})" if cause else ""
            raise EnvironmentProblem(
                f"{base} cannot be reached{through} {tries}{why}; is the server running and the URL right? {KEPT}"
            ) from None
        raise EnvironmentProblem(f"{base}: {safe(str(error), key=self._key)}; {KEPT}") from None

    def _raise_status(self, question: Question, said: Told, error: openai.APIStatusError) -> NoReturn:
        """Raise our error for one that the endpoint told, in its own words."""
        base, tries, words = self._settings.api_base, f"after {self._settings.retries + 1} tries", f"{said.status}: {said.words}"
        problem: JobError
        if said.status in (401, 403):
            where = f"the key in {self._settings.key_variable}" if self._settings.key_variable else "--api-key-env (no key is sent)"
            problem = EnvironmentProblem(f"{base} refuses the key ({words}); check {where}; {KEPT}")
        elif said.status == 402:
            problem = EnvironmentProblem(f"{base} asks for payment ({words}); {KEPT}")
        elif said.status == 429:
            problem = EnvironmentProblem(f"{base} still limits the rate or the quota {tries} ({words}); wait; {KEPT}")
        elif said.status >= 500 or said.status in (408, 409):
            problem = QuestionFailed(f"{self._about(question)}{base} fails {tries} ({words}); {KEPT}")
        elif said.status < 400:
            place = safe(error.response.headers.get("location", "nowhere"), key=self._key)
            problem = UsageProblem(f"{base} sends us on to {place} ({said.status}); nothing of ours goes there: give it as --api-base")
        elif said.status in (404, 405, 410):
            problem = UsageProblem(f"{base} refuses the request for model {self._model!r} ({words}); check model and URL")
        else:
            problem = QuestionRefused(f"{self._about(question)}{base} refuses the question to model {self._model!r} ({words})")
        raise problem from None

    def _about(self, question: Question) -> str:
        return f"{question.about}: " if question.about else ""
