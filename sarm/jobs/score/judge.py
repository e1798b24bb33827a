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
from sarm.judges.answers import AnswerLog, RecordedJudge
from sarm.judges.concurrent_questions import ask_all, pending
from sarm.judges.endpoint import EndpointJudge, EndpointSettings, read_settings
from sarm.judges.questions import Judge, Question, Usage
from sarm.judges.verdicts import (
    CANDIDATES,
    LETTERS,
    UNREAD,
    displayed,
    position_of,
    ranking_prompt,
    ranking_rewards,
    rating_prompt,
    read_rating,
    read_verdict,
)
from sarm.store.json_lines import write_lines

# For the estimate before the first call: an explanation and a number, or a verdict.
TYPICAL_OUTPUT_TOKENS = 250
OTHER_READING = {"checked": "official", "official": "checked"}


class Task(NamedTuple):
    """One item and what is asked of it: one ranking question with the chosen completion's `position`, or a rating of each completion."""

    item: Preference
    position: int | None
    questions: tuple[Question, ...]


def judge_benchmark(config: JudgeConfig, context: JobContext) -> None:
    """Writes `judgements.jsonl` (answers and what was read in them) and `rewards.jsonl`, both in the benchmark's order, `answers.json`
    (question key -> answer) and `conditions.json`.

    Raises UsageProblem for items that cannot be asked about and for a cap that the work would exceed; EnvironmentProblem when the endpoint
    fails: answers so far are kept in the checkpoint and not asked for again.
    """
    tasks = [task_of(config, item) for item in read_items(config, context)]
    settings = None if config.judge == "recorded" else read_settings(context.locations.get("endpoint", Path("endpoint.json")))
    ranked = [question for task in tasks if task.position is not None for question in task.questions]
    rated = [question for task in tasks if task.position is None for question in task.questions]
    _estimate(config, context, [*ranked, *rated], settings)
    asked = {question.key for question in (*ranked, *rated)}
    for questions, tokens in ((ranked, config.ranking_tokens), (rated, config.rating_tokens)):
        log = _log(config, context, settings, tokens)
        before = len(asked & log.answers.keys())
        ask_all(
            log,
            questions,
            concurrency=settings.concurrency if settings else 1,
            stop_requested=context.stop_requested,
            answered=lambda done, before=before: context.progress(before + done, len(asked), "questions", ""),  # type: ignore[misc]
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
    question = item.prompt[0].content
    ties = item.subset == "Ties"
    if config.mode == "rating" or ties:
        prompts = [rating_prompt(question, completion, ties=ties) for completion in (*item.chosen, *item.rejected)]
        return Task(item, None, tuple(Question("", prompt) for prompt in prompts))
    if len(item.chosen) != 1 or len(item.rejected) != CANDIDATES - 1:
        found = f"{len(item.chosen)} chosen and {len(item.rejected)} rejected completions"
        raise UsageProblem(f"item {item.id!r} of {item.subset} has {found}; a ranking needs 1 and 3: choose mode = 'rating'")
    position = position_of(item.subset, item.id, seed=config.seed)
    shown = displayed((*item.chosen, *item.rejected), position)
    return Task(item, position, (Question(*ranking_prompt(question, shown, config.ranking_prompt)),))


def judgement(config: JudgeConfig, task: Task, answers: Sequence[str]) -> tuple[dict[str, Any], ScoredPreference]:
    """One line of `judgements.jsonl` with the rewards that follow from it, the chosen completions first."""
    item = task.item
    facts: dict[str, Any] = {"id": item.id, "subset": item.subset}
    if task.position is not None:
        verdict = read_verdict(answers[0], config.reading)
        rewards = ranking_rewards(verdict, task.position)
        facts |= {"mode": "ranking", "position": task.position, "verdict": None if verdict is None else LETTERS[verdict]}
    else:
        rewards = tuple(read_rating(answer, config.reading) for answer in answers)
        facts |= {"mode": "rating", "ratings": list(rewards)}
    chosen = len(item.chosen)
    scored = ScoredPreference(
        id=item.id, subset=item.subset, source=item.source, chosen_rewards=rewards[:chosen], rejected_rewards=rewards[chosen:]
    )
    return {**facts, "answers": list(answers)}, scored


def _log(config: JudgeConfig, context: JobContext, settings: EndpointSettings | None, tokens: int) -> AnswerLog:
    """The answers so far, also those of an earlier job, and who gives the rest. Ranking and rating allow answers of different length."""
    judge: Judge
    if settings is None:
        judge = RecordedJudge(context.locations.get("answers", Path("answers.json")), digest=config.answers_digest)
    else:
        judge = EndpointJudge(settings, model=config.judge_model, temperature=config.temperature, max_output_tokens=tokens)
    log = AnswerLog(judge, context.checkpoint / "answers.jsonl", settings=settings, max_output_tokens=tokens)
    if "earlier" in context.inputs:
        log.remember(json.loads((context.inputs["earlier"] / "answers.json").read_text(encoding="utf-8")))
    return log


def _estimate(config: JudgeConfig, context: JobContext, questions: Sequence[Question], settings: EndpointSettings | None) -> None:
    """Tell what is left to ask and its likely cost. Raises UsageProblem, before any call, where that goes beyond a cap."""
    log = _log(config, context, settings, config.rating_tokens)
    left = pending(log, questions)
    typical = min(TYPICAL_OUTPUT_TOKENS, config.rating_tokens)
    total = Usage(0, 0)
    for question in left:
        total = total.plus(question.estimate(typical))
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
    text = json.dumps(dict(sorted(answers.items())), ensure_ascii=False, indent=1)
    (context.output / "answers.json").write_text(text + "\n", encoding="utf-8")
    facts = {**config.model_dump(mode="json"), **log.usage._asdict(), "questions": len(answers), **_counts(config, rows)}
    (context.output / "conditions.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _counts(config: JudgeConfig, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many answers of each kind there are, how many could not be read, and how many the other parser reads differently."""
    ranked, rated = [row for row in rows if row["mode"] == "ranking"], [row for row in rows if row["mode"] == "rating"]
    other: Any = OTHER_READING[config.reading]
    unread: Counter[str] = Counter()
    differently = 0
    for row in ranked:
        unread[row["subset"]] += row["verdict"] is None
        place = read_verdict(row["answers"][0], other)
        differently += (None if place is None else LETTERS[place]) != row["verdict"]
    for row in rated:
        unread[row["subset"]] += row["ratings"].count(UNREAD)
        differently += sum(read_rating(text, other) != rating for text, rating in zip(row["answers"], row["ratings"], strict=True))
    return {
        "items": len(rows),
        "rankings": len(ranked),
        "ratings": sum(len(row["ratings"]) for row in rated),
        "unread": sum(unread.values()),
        "unread_by_subset": {subset: count for subset, count in unread.items() if count},
        "read_differently": differently,
        "verdicts": dict(sorted(Counter(row["verdict"] for row in ranked if row["verdict"]).items())),
    }
