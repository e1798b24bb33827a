"""The log in which every answer that was paid for is kept as soon as it is there."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from sarm.job import EnvironmentProblem, UsageProblem
from sarm.judges.questions import REFUSED, UNPAID, Answer, Judge, Question, QuestionRefused, QuestionUnheard, Usage
from sarm.judges.recorded import Kept, facts_of
from sarm.judges.settings import EndpointSettings
from sarm.judges.spending import Spending
from sarm.store.json_lines import append_line, as_line, read_log
from sarm.store.whole_files import whole_file

TORN = ".torn"


class KeptRow(Kept):
    """A line of the log."""

    question: str


class AnswerLog:
    """A judge whose every answer is appended to a file at once; a question that is there is not asked again.

    With settings no call is made that may go beyond their caps; answers of earlier attempts at the same job count, those of the run's
    other jobs (`spending`), and what other threads are asking: several may ask at once, each a question of its own. A question whose
    answer was never heard, since the process was stopped or the wait was too long, counts as if it had been answered at its longest: the
    endpoint may charge for it. `tell` gets lines for the job's log.
    """

    def __init__(
        self,
        judge: Judge,
        path: Path,
        *,
        settings: EndpointSettings | None,
        spending: Spending | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._judge = judge
        self._path = path
        self._settings = settings
        self._spending = spending
        self._tell = tell
        self.answers: dict[str, Answer] = {}
        self.usage = Usage(0, 0)
        self.remembered = 0
        # Whether a question that the endpoint refuses is left unread instead of ending the work.
        self.leaves_refused_unread = False
        self._under_way = Usage(0, 0)
        self._lock = threading.Lock()
        self._read()
        # What earlier attempts asked for and never got, or lost together with their log.
        self._unheard = spending.left.beyond(self.usage) if spending is not None else Usage(0, 0)
        self._tell_spending()

    def remember(self, answers: Mapping[str, Answer]) -> None:
        """Take over answers (question key -> answer) that somebody else has kept, save those that nobody gave."""
        more = {key: answer for key, answer in answers.items() if key not in self.answers and answer.finish not in UNPAID}
        self.answers.update(more)

    def refuse_other_addresses(self, wanted: Collection[str]) -> None:
        """Raise UsageProblem where kept answers to questions of these keys are another address's, or do not say whose they are."""
        if self._settings is None:
            return
        kept = [self.answers[key].address for key in wanted if key in self.answers]
        others = Counter(address or "an address that was not kept" for address in kept if address != self._settings.address)
        if not others:
            return
        named = " and ".join(f"{count:,} of {len(kept):,} kept answers are from {address}" for address, count in sorted(others.items()))
        if not self._settings.accept_answers:
            raise UsageProblem(
                f"{named}, not from {self._settings.address}; --accept-answers uses them as they are, --api-base with their own address "
                "goes on there, --fresh asks anew"
            )
        self._tell(f"{named}; they are used as --accept-answers says")

    def answer(self, question: Question) -> Answer:
        """The remembered answer, or the judge's. Raises UsageProblem at the cap."""
        if question.key in self.answers:
            return self.answers[question.key]._replace(usage=Usage(0, 0))
        most = question.estimate(question.longest)
        self._reserve(most)
        answer: Answer | None = None
        heard = False
        try:
            answer = self._asked(question)
            heard = True
        except (UsageProblem, EnvironmentProblem) as problem:
            heard = not isinstance(problem, QuestionUnheard)
            raise
        finally:
            with self._lock:
                self._under_way = self._under_way.minus(most)
                self._unheard = self._unheard if heard else self._unheard.plus(most)
                if answer is not None:
                    self._keep(question, answer)
                self._tell_spending()
        return answer

    def check(self, more: Usage, *, of: str) -> None:
        """Raise UsageProblem when `more` tokens on top of those used go beyond a cap."""
        if self._settings is None:
            return
        others = self._spending.others() if self._spending is not None else Usage(0, 0)
        total = self.usage.plus(more).plus(others).plus(self._unheard)
        tokens, cost = sum(total), self._settings.cost(total)
        if tokens > self._settings.max_tokens or cost > self._settings.max_cost:
            parts = ((others, "by this run's other jobs"), (self._unheard, "for questions whose answers were lost"))
            told = [f"{sum(one):,} and ${self._settings.cost(one):.2f} of it {what}" for one, what in parts if sum(one)]
            before = f" ({'; '.join(told)})" if told else ""
            raise UsageProblem(
                f"with {of} the judge may take {tokens:,} tokens or ${cost:.2f}{before}, above the cap of {self._settings.max_tokens:,} "
                f"tokens or ${self._settings.max_cost:.2f} for all jobs of a run; raise the cap or ask less; what was answered is kept, "
                "the same command continues"
            )

    def facts(self, questions: Iterable[Question]) -> dict[str, Any]:
        """Who answered some questions, what they were asked without, and how many seem to have been cut by the server."""
        pairs = [(one, self.answers[one.key]) for one in {one.key: one for one in questions}.values() if one.key in self.answers]
        by = Counter((answer.address, answer.model) for _, answer in pairs)
        without = Counter(wish for _, answer in pairs for wish in answer.without)
        return {
            "answered_by": [{"address": address, "model": model, "answers": count} for (address, model), count in sorted(by.items())],
            "asked_without": dict(sorted(without.items())),
            "perhaps_cut": sum(answer.looks_cut(question) for question, answer in pairs),
        }

    def _asked(self, question: Question) -> Answer:
        try:
            return self._judge.answer(question)
        except QuestionRefused as refused:
            if not self.leaves_refused_unread:
                raise
            return Answer("", Usage(0, 0), finish=REFUSED, note=str(refused))

    def _reserve(self, most: Usage) -> None:
        with self._lock:
            self._under_way = self._under_way.plus(most)
            self._tell_spending()
            try:
                self.check(self._under_way, of="the next question")
            except UsageProblem:
                self._under_way = self._under_way.minus(most)
                self._tell_spending()
                raise

    def _tell_spending(self) -> None:
        if self._spending is not None:
            self._spending.tell(self.usage.plus(self._under_way).plus(self._unheard))

    def _keep(self, question: Question, answer: Answer) -> None:
        if answer.finish in UNPAID:
            self._tell(f"{question.about or question.key[:12]}: not answered ({answer.finish}; {answer.note}); it counts as unread")
        else:
            self._append({"question": question.key, **facts_of(answer), **answer.usage._asdict()})
        self.answers[question.key] = answer
        self.usage = self.usage.plus(answer.usage)

    def _append(self, row: Mapping[str, Any]) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            append_line(self._path, row)
        except OSError:
            # A full disk takes half a line, to which the next answer would be glued.
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)
            raise

    def _read(self) -> None:
        """Read what is kept. What is torn is told and set aside, so that the next answer is not glued to it, and asked for again."""
        found = _found(self._path)
        if found.torn:
            aside = self._path.with_name(self._path.name + TORN)
            with aside.open("ab") as out:
                out.writelines(line.rstrip(b"\n") + b"\n" for line in found.torn)
            said = f"{len(found.torn)} torn or unreadable lines are set aside in {aside.name}"
            self._tell(f"{self._path.name}: {said}; the answers that they held are asked for again")
        if found.torn or found.mended:
            with whole_file(self._path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(as_line(row) for row in found.rows)
        for row in found.rows:
            # Of two answers to one question the first was used when the second came.
            self.answers.setdefault(row.question, row.taken())
            self.usage = self.usage.plus(Usage(row.input_tokens, row.output_tokens))
        self.remembered = len(self.answers)


class _Found(NamedTuple):
    """What a log held: its answers in order, lines that are none, and how many were whole amid zeros or without their line end."""

    rows: list[KeptRow]
    torn: list[bytes]
    mended: int


def _found(path: Path) -> _Found:
    log = read_log(path)
    read = [(_row(raw), as_line({"row": raw}).encode()) for raw in log.rows]
    mended = [(_whole(line), line) for line in log.torn]
    return _Found(
        rows=[row for row, _ in (*read, *mended) if row is not None],
        torn=[line for row, line in (*read, *mended) if row is None],
        mended=sum(row is not None for row, _ in mended),
    )


def _row(raw: Any) -> KeptRow | None:
    try:
        return KeptRow.model_validate(raw)
    except ValidationError:
        return None


def _whole(line: bytes) -> KeptRow | None:
    try:
        return KeptRow.model_validate_json(line.strip(b"\0 \r\n"))
    except ValidationError:
        return None
