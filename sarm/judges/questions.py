"""What a judge is asked and what it answers."""

from __future__ import annotations

import hashlib
import json
import math
from typing import NamedTuple, Protocol

from sarm.job import EnvironmentProblem, UsageProblem

# For estimates before the first call: English has about four characters a token.
BYTES_PER_TOKEN = 4
# More bytes a token than any text has: where a server counts fewer tokens than this says, it has cut the question.
MOST_BYTES_PER_TOKEN = 12
# How answers end that were brought to their end; a server that says nothing of it is believed.
ENDED = frozenset(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn"))
# Ends of our own: the question is longer than the judge can read; it was refused; a filter took it; there is no word in the answer.
CONTEXT, REFUSED, FILTERED, WORDLESS, THOUGHTS_ONLY = "context", "refused", "filtered", "wordless", "thoughts only"
# Why an answer that was brought to its end may be unread.
WORDS = "its words"
# Nothing was read and nothing paid: such an answer is asked for again by the next attempt.
UNPAID = frozenset((CONTEXT, REFUSED))


class QuestionRefused(UsageProblem):
    """The endpoint refuses one question; it may answer the others."""


class QuestionFailed(EnvironmentProblem):
    """The endpoint fails at one question; it may answer the others."""


class QuestionUnheard(QuestionFailed):
    """One question was asked and no answer to it came through; the endpoint may charge for it."""


class Usage(NamedTuple):
    """Tokens read and written by a judge."""

    input_tokens: int
    output_tokens: int

    def plus(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)

    def minus(self, other: Usage) -> Usage:
        """This without the other."""
        return Usage(self.input_tokens - other.input_tokens, self.output_tokens - other.output_tokens)

    def beyond(self, other: Usage) -> Usage:
        """By how much this is more than the other; 0 where it is less."""
        return Usage(*(max(0, more) for more in self.minus(other)))


class Question(NamedTuple):
    """What a judge is asked, without a system message where `system` is empty.

    `longest` is the longest answer in tokens, `attempt` counts earlier times of the same question, `about` names in messages what it asks
    about.
    """

    system: str
    text: str
    longest: int
    attempt: int = 0
    about: str = ""

    @property
    def key(self) -> str:
        """SHA-256 of system message, text and attempt: under this name an answer is recorded."""
        return hashlib.sha256(json.dumps([self.system, self.text, self.attempt]).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of its words."""
        return len((self.system + self.text).encode())

    def estimate(self, output_tokens: int) -> Usage:
        """Tokens that the question may take, from its bytes."""
        return Usage(math.ceil(self.size / BYTES_PER_TOKEN), output_tokens)


class Answer(NamedTuple):
    """What a judge said, the tokens that it took, and what makes an answer what it is.

    `finish` is how it ended, as the server says or by a name of our own; `address` and `model` say who answered, as far as is known;
    `without` names what the question was asked without, because the endpoint refuses it; `note` has the server's words where it refused.
    """

    text: str
    usage: Usage
    finish: str = ""
    address: str = ""
    model: str = ""
    without: tuple[str, ...] = ()
    note: str = ""

    @property
    def ended(self) -> bool:
        """Whether it was brought to its end; what was cut has neither verdict nor rating."""
        return self.finish.lower() in ENDED

    def looks_cut(self, question: Question) -> bool:
        """Whether the server counted so few tokens that it cannot have read the whole question."""
        return 0 < self.usage.input_tokens * MOST_BYTES_PER_TOKEN < question.size


class Judge(Protocol):
    """Somebody who answers questions."""

    def answer(self, question: Question) -> Answer:
        """The answer. Raises JobError when there is none; QuestionRefused and QuestionFailed concern this question alone."""
