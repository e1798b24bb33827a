"""Many questions to one judge, several at a time; what was answered is kept whatever happens to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from sarm.job import Interrupted
from sarm.judges.answers import AnswerLog
from sarm.judges.questions import Answer, Question

# How often a stop request is looked for while all questions are under way.
POLL_SECONDS = 0.5


def pending(log: AnswerLog, questions: Iterable[Question]) -> list[Question]:
    """The questions that have no answer yet, each once, in order."""
    return list({one.key: one for one in questions if one.key not in log.answers}.values())


def ask_all(
    log: AnswerLog,
    questions: Iterable[Question],
    *,
    concurrency: int,
    stop_requested: Callable[[], bool],
    answered: Callable[[int], None],
) -> None:
    """Ask what is pending, at most `concurrency` at a time; `answered(count)` is told how many have been answered.

    After a failure or a stop request no further question is begun and those under way are waited for. Raises what the first failing
    question raised, or Interrupted.
    """
    waiting, under_way, done = iter(pending(log, questions)), set[Future[Answer]](), 0
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
            failures = [error for one in finished if (error := one.exception()) is not None]
            failure = failure or next(iter(failures), None)
            done += len(finished) - len(failures)
            if finished:
                answered(done)
    if failure is not None:
        raise failure
    if stopped and not exhausted:
        raise Interrupted(f"stopped on request with {len(log.answers):,} answers kept; the same command continues")
