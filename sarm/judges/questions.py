"""What a judge is asked and what it answers."""

from __future__ import annotations

import hashlib
import json
import math
from typing import NamedTuple, Protocol

# For estimates before the first call: English has about four characters a token.
BYTES_PER_TOKEN = 4


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
