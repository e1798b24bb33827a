"""Many questions to one judge, several at a time; what was answered is kept whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from sarm.job import Interrupted
from sarm.judges.answers import AnswerLog
from sarm.judges.questions import Answer, Question, QuestionFailed, QuestionRefused

# How often a stop request is looked for while all questions are under way.
POLL_SECONDS = 0.5
# So many questions one after the other without an answer are no matter of the questions.
MOST_IN_A_ROW = 3
NAMED = 3


class Unanswered:
    """Questions that have no answer while others have: they end the work when all others are answered, or when they follow each other."""

    def __init__(self, log: AnswerLog, *, refused_are_unread: bool) -> None:
        self._log = log
        self._refused_are_unread = refused_are_unread
        self._errors: list[QuestionRefused | QuestionFailed] = []
        self._in_a_row = 0

    def answered(self) -> None:
        """A question was answered."""
        self._in_a_row = 0

    def add(self, error: BaseException) -> None:
        """A question was not answered. Raises the error where it is not the question's alone, or one too many in a row."""
        self._in_a_row += 1
        if not isinstance(error, QuestionRefused | QuestionFailed) or self._in_a_row >= MOST_IN_A_ROW:
            raise error
        self._errors.append(error)

    def ask_again(self) -> bool:
        """Whether to go through the work once more, in which refused questions are left unread. Raises for all that stay unanswered."""
        if not self._errors:
            return False
        if self._refused_are_unread and not any(isinstance(one, QuestionFailed) for one in self._errors):
            self._errors.clear()
            self._log.leaves_refused_unread = True
            return True
        named = "; ".join(str(one) for one in self._errors[:NAMED])
        more = f"; and {len(self._errors) - NAMED} more" if len(self._errors) > NAMED else ""
        failed = next((one for one in self._errors if isinstance(one, QuestionFailed)), None)
        hint = "" if failed else ", --refused-questions unread counts them as unread"
        kind = type(failed or self._errors[0])
        raise kind(
            f"{len(self._errors)} questions have no answer, all others have and are kept: {named}{more}; "
            f"the same command asks them again{hint}"
        )


def pending(log: AnswerLog, questions: Iterable[Question]) -> list[Question]:
    """The questions that have no answer yet, each once, in order."""
    return list({one.key: one for one in questions if one.key not in log.answers}.values())


def ask_all(
    log: AnswerLog,
    questions: Iterable[Question],
    *,
    concurrency: int,
    refused_are_unread: bool = False,
    stop_requested: Callable[[], bool],
    answered: Callable[[int], None],
) -> None:
    """Ask what is pending, at most `concurrency` at a time; `answered(count)` is told how many have been answered.

    A question that is refused, or at which the endpoint fails, is left behind; after three of them in a row, any other failure or a stop
    request no further question is begun and those under way are waited for. Raises what the first failing question raised, QuestionRefused
    or QuestionFailed for all that were left behind, or Interrupted.
    """
    wanted = list(questions)
    unanswered = Unanswered(log, refused_are_unread=refused_are_unread)
    done = 0
    while True:
        done = _ask(log, wanted, unanswered, concurrency=concurrency, stop_requested=stop_requested, answered=answered, done=done)
        if not unanswered.ask_again():
            return


def _ask(
    log: AnswerLog,
    questions: Iterable[Question],
    unanswered: Unanswered,
    *,
    concurrency: int,
    stop_requested: Callable[[], bool],
    answered: Callable[[int], None],
    done: int,
) -> int:
    """One pass over what is pending after `done` answers; how many there are then."""
    waiting, under_way = iter(pending(log, questions)), set[Future[Answer]]()
    failure: BaseException | None = None
    stopped = exhausted = False
    with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="judge") as pool:
        while True:
            stopped = stopped or stop_requested()
            while not (stopped or failure or exhausted) and len(under_way) < concurrency:
                question = next(waiting, None)
                exhausted = question is None
                if question is not None:
                    under_way.add(pool.submit(log.answer, question))
            if not under_way:
                break
            finished, under_way = wait(under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            count, failure = _outcome(finished, unanswered, failure)
            done += count
            if finished:
                answered(done)
    if failure is not None:
        raise failure
    if stopped and not exhausted:
        raise Interrupted(f"stopped on request with {len(log.answers):,} answers kept; the same command continues")
    return done


def _outcome(finished: Iterable[Future[Answer]], unanswered: Unanswered, failure: BaseException | None) -> tuple[int, BaseException | None]:
    """How many of the finished questions were answered, and what ends the work."""
    done = 0
    for one in finished:
        error = one.exception()
        if error is None:
            done += 1
            unanswered.answered()
            continue
        try:
            unanswered.add(error)
        except BaseException as ending:
            failure = failure or ending
    return done, failure
