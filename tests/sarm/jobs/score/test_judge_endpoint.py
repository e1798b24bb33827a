"""What the judge's job makes of an endpoint's ways: whose answers, cut ones, questions too long, wishes that are refused, the run's cap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, ChatServer, chat_server, completion, refusal
from judged_items import config, context_of, judged, outcome
from tiny import read_rows

from sarm.data.preferences import ScoredPreference
from sarm.job import JobContext, UsageProblem
from sarm.jobs.score.judge import judge_benchmark
from sarm.judges.verdicts import GRAMMAR
from sarm.metrics.rewardbench2 import rewardbench2_scores


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as running:
        running.answer = lambda request: completion(judged(request))
        yield running


def test_answers_of_another_address_are_taken_over_only_where_that_is_asked_for(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path / "ranking", server)
    (earlier,) = {row["address"] for row in json.loads((tmp_path / "ranking" / "output" / "answers.json").read_text()).values()}
    with chat_server() as other:
        other.answer = server.answer
        for accepted in (False, True):
            context = context_of(tmp_path / "rating", other, accept_answers=accepted)
            context.inputs["earlier"] = tmp_path / "ranking" / "output"  # type: ignore[index]
            if not accepted:
                with pytest.raises(UsageProblem, match=f"6 of 6 kept answers are from {earlier}, not from {other.url}; --accept-answers"):
                    judge_benchmark(config(mode="rating"), context)
                assert other.requests == []
                continue
            judge_benchmark(config(mode="rating"), context)
        facts = json.loads((context.output / "conditions.json").read_text())
        by = {one["address"]: one["answers"] for one in facts["answered_by"]}
        assert by == {earlier: 6, other.url: 12} and len(other.requests) == 12


def test_an_earlier_version_s_answers_without_address_are_used_where_that_is_asked_for(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path / "whole", server)
    kept = json.loads((tmp_path / "whole" / "output" / "answers.json").read_text())
    old = [{"question": key, "answer": row["answer"], "input_tokens": 10, "output_tokens": 5} for key, row in kept.items()]
    context = context_of(tmp_path / "old", server)
    (context.checkpoint / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old[:5]), encoding="utf-8")
    server.requests.clear()
    with pytest.raises(UsageProblem, match="5 of 5 kept answers are from an address that was not kept"):
        judge_benchmark(config(), context)
    assert server.requests == []
    judge_benchmark(config(), context_of(tmp_path / "old", server, accept_answers=True))
    assert len(server.requests) == 4
    assert (tmp_path / "old" / "output" / "rewards.jsonl").read_bytes() == (tmp_path / "whole" / "output" / "rewards.jsonl").read_bytes()


def test_a_question_beyond_the_context_is_unread_counted_and_named_and_the_others_are_judged(server: ChatServer, tmp_path: Path) -> None:
    good = server.answer
    too_long = refusal(400, "This model's maximum context length is 8 tokens.", code="context_length_exceeded")
    server.answer = lambda request: too_long if "c 1 0" in request["messages"][-1]["content"] else good(request)
    lines: list[str] = []
    context = JobContext(**{**vars(context_of(tmp_path, server)), "log": lines.append})
    judge_benchmark(config(), context)
    rows = read_rows(context.output / "judgements.jsonl")
    assert rows[1]["verdict"] is None and rows[1]["not_ended"] == {"0": "context"} and rows[0]["verdict"] is not None
    facts = json.loads((context.output / "conditions.json").read_text())
    assert facts["unread_because"] == {"context": 1} and facts["unread_by_subset"] == {"Math": 1}
    assert any("Math/1: not answered (context; 400: This model's maximum context length" in line for line in lines)
    rewards = [ScoredPreference(**row) for row in read_rows(context.output / "rewards.jsonl")]
    assert rewardbench2_scores(rewards).metrics["Math"].value == (1 + 0.25) / 2


def test_an_answer_that_was_cut_or_only_thought_is_unread(server: ChatServer, tmp_path: Path) -> None:
    def cut(request: dict[str, Any]) -> bytes:
        if request["messages"][0]["role"] == "system":
            return completion('<think>... and "[[D]]" if assistant D is best. From 1 to 10. Point 1: a. Point 2', finish="length")
        return completion(None, finish="stop", beside={"reasoning_content": "Rating: 9"})

    server.answer = cut
    rows, rewards, facts = outcome(tmp_path, server)
    assert {row["verdict"] for row in rows[:3]} == {None} and rows[3]["ratings"] == [-1.0, -1.0]
    assert facts["unread"] == 9 and facts["unread_because"] == {"length": 3, "thoughts only": 6} and facts["grammar"] == GRAMMAR
    assert rewardbench2_scores(rewards).metrics["Math"].value == 0.25


def test_an_answer_of_parts_and_one_with_any_line_end_is_read_and_stays_one_row(server: ChatServer, tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Fair.\u2028\u0085\u2029 Rating: "}, {"type": "text", "text": "8"}]
    server.answer = lambda request: completion(parts)
    rows, _, facts = outcome(tmp_path, server, mode="rating")
    assert facts["unread"] == 0 and rows[0]["ratings"] == [8.0] * 4 and rows[0]["answers"][0] == "Fair.\u2028\u0085\u2029 Rating: 8"
    assert len((tmp_path / "output" / "judgements.jsonl").read_text(encoding="utf-8").splitlines()) == len(rows)


def test_a_judge_that_takes_neither_temperature_nor_max_tokens_is_asked_without(server: ChatServer, tmp_path: Path) -> None:
    def strict(request: dict[str, Any]) -> Any:
        if "max_tokens" in request:
            return refusal(400, "Use 'max_completion_tokens' instead.", code="unsupported_parameter", param="max_tokens")
        if "temperature" in request:
            return refusal(400, "Only the default (1) value is supported.", code="unsupported_value", param="temperature")
        return completion(judged(request))

    server.answer = strict
    context = context_of(tmp_path, server, concurrency=1)
    judge_benchmark(config(), context)
    # Two refusals for all: what was refused once is not sent again.
    assert len(server.requests) == 9 + 2 and {asked.get("max_completion_tokens") for asked in server.requests[2:]} == {2048, 1024}
    facts = json.loads((context.output / "conditions.json").read_text())
    assert facts["unread"] == 0 and facts["asked_without"] == {"max_tokens": 9, "temperature": 9}


def test_a_judge_without_system_messages_gets_the_instructions_before_the_question(server: ChatServer, tmp_path: Path) -> None:
    def strict(request: dict[str, Any]) -> Any:
        if request["messages"][0]["role"] == "system":
            return refusal(400, "System role not supported")
        return completion("[[A]]" if "[[A]]" in request["messages"][0]["content"] else "7")

    server.answer = strict
    _, _, facts = outcome(tmp_path, server)
    assert facts["asked_without"] == {"system": 3} and facts["unread"] == 0


def test_refused_questions_end_the_job_when_the_others_are_answered_or_are_unread_where_that_is_asked_for(
    server: ChatServer, tmp_path: Path
) -> None:
    good = server.answer
    server.answer = lambda request: refusal(400, "cannot do") if "c 1 0" in request["messages"][-1]["content"] else good(request)
    for _ in range(2):
        with pytest.raises(UsageProblem, match=r"Math/1: .*\(400: cannot do\).*--refused-questions unread"):
            judge_benchmark(config(), context_of(tmp_path, server))
    assert len(server.requests) == 9 + 1
    judge_benchmark(config(), context_of(tmp_path, server, refused="unread"))
    facts = json.loads((tmp_path / "output" / "conditions.json").read_text())
    assert facts["unread_because"] == {"refused": 1} and facts["questions"] == 9


def test_the_cap_of_a_run_holds_over_its_jobs(server: ChatServer, tmp_path: Path) -> None:
    def context(name: str) -> JobContext:
        made = context_of(tmp_path / name, server, max_tokens=5_000, concurrency=1)
        made.locations["spent"] = tmp_path / "run" / f"{name}.json"  # type: ignore[index]
        return made

    server.answer = lambda request: completion(judged(request), completion_tokens=250)
    judge_benchmark(config(), context("ranking"))
    with pytest.raises(UsageProblem, match=r"with all questions of this job .* by this run's other jobs\)"):
        judge_benchmark(config(mode="rating"), context("rating"))
    assert len(server.requests) == 9
