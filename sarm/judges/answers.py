"""Answers that are kept: recorded ones that stand in for a judge, and the log in which every paid one is written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem
from sarm.judges.endpoint import EndpointSettings
from sarm.judges.questions import Answer, Judge, Question, Usage
from sarm.store.checksums import sha256_of


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
