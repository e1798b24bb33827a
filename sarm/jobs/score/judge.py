"""A judge's verdicts and ratings of a benchmark's completions, asked as the official harness asks; metrics come with the table.

Inputs: `benchmark`, perhaps `earlier`. Writes `judgements.jsonl` (answers and what was read in them), `rewards.jsonl`, `answers.json`,
`conditions.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sarm.config.score import JudgeConfig
from sarm.data.preferences import DataError, Preference, ScoredPreference, read_jsonl
from sarm.job import JobContext, UsageProblem
from sarm.judges.answers import AnswerLog
from sarm.judges.concurrent_questions import ask_all, pending
from sarm.judges.endpoint import EndpointJudge
from sarm.judges.questions import WORDS, Answer, Judge, Question, Usage
from sarm.judges.recorded import RecordedJudge, read_answers, write_answers
from sarm.judges.settings import EndpointSettings, read_settings
from sarm.judges.spending import Spending
from sarm.judges.verdicts import (
    CANDIDATES,
    GRAMMAR,
    LETTERS,
    UNREAD,
    Reading,
    displayed,
    position_of,
    ranking_prompt,
    ranking_rewards,
    rating_prompt,
    read_rating,
    read_verdict,
)
from sarm.store.json_lines import write_lines
from sarm.store.whole_files import write_whole

# For the estimate before the first call: an explanation and a number, or a verdict.
TYPICAL_OUTPUT_TOKENS = 250
OTHER_READING: Mapping[Reading, Reading] = {"checked": "official", "official": "checked"}


class Task(NamedTuple):
    """One item and what is asked of it: one ranking question with the chosen completion's `position`, or a rating of each completion."""

    item: Preference
    position: int | None
    questions: tuple[Question, ...]


def judge_benchmark(config: JudgeConfig, context: JobContext) -> None:
    """Writes `judgements.jsonl` (answers and what was read in them) and `rewards.jsonl`, both in the benchmark's order, `answers.json`
    (question key -> answer) and `conditions.json`.

    Raises UsageProblem for items that cannot be asked about, for answers that another address gave, and for a cap that the work would
    exceed; EnvironmentProblem when the endpoint fails: answers so far are kept in the checkpoint and not asked for again. A question that
    is longer than the judge can read, or that a filter takes, is unread, counted and named in the log.
    """
    tasks = [task_of(config, item) for item in read_items(config, context)]
    settings = None if config.judge == "recorded" else read_settings(context.locations.get("endpoint", Path("endpoint.json")))
    questions = [question for task in sorted(tasks, key=lambda one: one.position is None) for question in task.questions]
    asked = {question.key for question in questions}
    log = _log(config, context, settings, asked)
    _estimate(config, context, questions, log, settings)
    before = len(asked & log.answers.keys())
    ask_all(
        log,
        questions,
        concurrency=settings.concurrency if settings else 1,
        refused_are_unread=settings is not None and settings.refused == "unread",
        stop_requested=context.stop_requested,
        answered=lambda done: context.progress(before + done, len(asked), "questions", ""),
    )
    _write(config, context, tasks, log)


def read_items(config: JudgeConfig, context: JobContext) -> list[Preference]:
    """The items of the subset that is asked for, cut to the limit. Raises UsageProblem where there are none."""
    try:
        items = list(read_jsonl(context.inputs["benchmark"] / f"{config.benchmark}.jsonl", Preference))
    except DataError as error:
        raise UsageProblem(str(error)) from error
    kept = [item for item in items if config.subset in ("", item.subset)]
    if not kept:
        known = ", ".join(sorted({repr(item.subset) for item in items})) or "no rows"
        raise UsageProblem(f"{config.benchmark}.jsonl has nothing to judge: asked for {config.subset or 'all'!r}, it has {known}")
    return kept[: config.limit] if config.limit else kept


def task_of(config: JudgeConfig, item: Preference) -> Task:
    """What is asked of an item. Raises UsageProblem for a conversation of several turns, and for a ranking of other than 1 + 3."""
    if len(item.prompt) != 1:
        raise UsageProblem(f"item {item.id!r} of {item.subset} has {len(item.prompt)} turns; the judge's prompts hold one question")
    question, about = item.prompt[0].content, f"{item.subset}/{item.id}"
    ties = item.subset == "Ties"
    if config.mode == "rating" or ties:
        prompts = [rating_prompt(question, completion, ties=ties) for completion in (*item.chosen, *item.rejected)]
        return Task(item, None, tuple(Question("", prompt, config.rating_tokens, about=about) for prompt in prompts))
    if len(item.chosen) != 1 or len(item.rejected) != CANDIDATES - 1:
        found = f"{len(item.chosen)} chosen and {len(item.rejected)} rejected completions"
        raise UsageProblem(f"item {item.id!r} of {item.subset} has {found}; a ranking needs 1 and 3: choose mode = 'rating'")
    position = position_of(item.subset, item.id, seed=config.seed)
    shown = displayed((*item.chosen, *item.rejected), position)
    system, text = ranking_prompt(question, shown, config.ranking_prompt)
    return Task(item, position, (Question(system, text, config.ranking_tokens, about=about),))


def judgement(config: JudgeConfig, task: Task, answers: Sequence[Answer]) -> tuple[dict[str, Any], ScoredPreference]:
    """One line of `judgements.jsonl` with the rewards that follow from it, the chosen completions first."""
    item = task.item
    facts: dict[str, Any] = {"id": item.id, "subset": item.subset}
    read = _read(task, answers, config.reading)
    if task.position is not None:
        verdict = read[0]
        rewards = ranking_rewards(None if verdict is None else int(verdict), task.position)
        facts |= {"mode": "ranking", "position": task.position, "verdict": None if verdict is None else LETTERS[int(verdict)]}
    else:
        rewards = tuple(UNREAD if rating is None else rating for rating in read)
        facts |= {"mode": "rating", "ratings": list(rewards)}
    chosen = len(item.chosen)
    scored = ScoredPreference(
        id=item.id, subset=item.subset, source=item.source, chosen_rewards=rewards[:chosen], rejected_rewards=rewards[chosen:]
    )
    unended = {str(place): answer.finish for place, answer in enumerate(answers) if not answer.ended}
    return {**facts, "answers": [answer.text for answer in answers], **({"not_ended": unended} if unended else {})}, scored


def _read(task: Task, answers: Sequence[Answer], reading: Reading) -> list[float | None]:
    """What each answer says: a place among four, or a rating; None where it cannot be read."""
    if task.position is not None:
        return [read_verdict(answer.text, reading, ended=answer.ended) for answer in answers]
    ratings = [read_rating(answer.text, reading, ended=answer.ended) for answer in answers]
    return [None if rating == UNREAD else rating for rating in ratings]


def _log(config: JudgeConfig, context: JobContext, settings: EndpointSettings | None, wanted: set[str]) -> AnswerLog:
    """The answers so far, also those of an earlier job, and who gives the rest."""
    judge: Judge
    if settings is None:
        judge = RecordedJudge(context.locations.get("answers", Path("answers.json")), digest=config.answers_digest)
    else:
        judge = EndpointJudge(settings, model=config.judge_model, temperature=config.temperature)
    spending = Spending(context.locations["spent"]) if "spent" in context.locations else None
    log = AnswerLog(judge, context.checkpoint / "answers.jsonl", settings=settings, spending=spending, tell=context.log)
    if "earlier" in context.inputs:
        log.remember(read_answers(context.inputs["earlier"] / "answers.json"))
    log.refuse_other_addresses(wanted)
    return log


def _estimate(
    config: JudgeConfig, context: JobContext, questions: Sequence[Question], log: AnswerLog, settings: EndpointSettings | None
) -> None:
    """Tell what is left to ask and its likely cost. Raises UsageProblem, before any call, where that goes beyond a cap."""
    left = pending(log, questions)
    total = Usage(0, 0)
    for question in left:
        total = total.plus(question.estimate(min(TYPICAL_OUTPUT_TOKENS, config.rating_tokens)))
    cost = f", about ${settings.cost(total):.2f}" if settings is not None else ""
    line = f"{len(left):,} questions to {config.judge_model}: about {sum(total):,} tokens{cost}"
    context.log(line)
    total_questions = len({question.key for question in questions})
    context.progress(total_questions - len(left), total_questions, "questions", line)
    log.check(total, of="all questions of this job")


def _write(config: JudgeConfig, context: JobContext, tasks: Sequence[Task], log: AnswerLog) -> None:
    rows, rewards = [], []
    for task in tasks:
        row, scored = judgement(config, task, [log.answers[question.key] for question in task.questions])
        rows.append(row)
        rewards.append(scored)
    write_lines(context.output / "judgements.jsonl", rows)
    write_lines(context.output / "rewards.jsonl", rewards)
    # Only what this benchmark asks: the file can be given to another run as recorded answers.
    answers = {question.key: log.answers[question.key] for task in tasks for question in task.questions}
    write_answers(context.output / "answers.json", answers)
    facts = {**config.model_dump(mode="json"), **log.usage._asdict(), "questions": len(answers), **_counts(config, tasks, log, rows)}
    write_whole(context.output / "conditions.json", json.dumps(facts, indent=1) + "\n")


def _counts(config: JudgeConfig, tasks: Sequence[Task], log: AnswerLog, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many answers of each kind there are, how many could not be read and why, how many the other parser reads differently, and who
    answered."""
    unread: Counter[str] = Counter()
    why: Counter[str] = Counter()
    differently = 0
    for task in tasks:
        answers = [log.answers[question.key] for question in task.questions]
        read, other = (_read(task, answers, reading) for reading in (config.reading, OTHER_READING[config.reading]))
        differently += sum(one != another for one, another in zip(read, other, strict=True))
        unread[task.item.subset] += read.count(None)
        why.update(WORDS if one.ended else one.finish for one, value in zip(answers, read, strict=True) if value is None)
    ranked = [row for row in rows if row["mode"] == "ranking"]
    return {
        "grammar": GRAMMAR,
        "items": len(rows),
        "rankings": len(ranked),
        "ratings": sum(len(row["ratings"]) for row in rows if row["mode"] == "rating"),
        "unread": sum(unread.values()),
        "unread_by_subset": {subset: count for subset, count in unread.items() if count},
        "unread_because": dict(sorted(why.items())),
        "read_differently": differently,
        "verdicts": dict(sorted(Counter(row["verdict"] for row in ranked if row["verdict"]).items())),
        **log.facts([question for task in tasks for question in task.questions]),
    }
