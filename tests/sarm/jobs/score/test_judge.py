"""The judge's job against a local endpoint that answers well, answers oddly, or misbehaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, ChatServer, chat_server, completion
from judged_items import config, context_of, item, judged, outcome
from pydantic import ValidationError
from tiny import Stop, job_context, read_rows, same_bytes

from sarm.data.preferences import Message, ScoredPreference
from sarm.job import EnvironmentProblem, Interrupted, JobContext, UsageProblem
from sarm.jobs.score.judge import judge_benchmark
from sarm.judges.verdicts import position_of
from sarm.metrics.rewardbench2 import rewardbench2_scores
from sarm.metrics.rmbench import rmbench_scores
from sarm.store.checksums import sha256_of


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as running:
        running.answer = lambda request: completion(judged(request))
        yield running


def test_a_ranking_names_the_best_of_four_and_ties_are_rated(server: ChatServer, tmp_path: Path) -> None:
    rows, rewards, facts = outcome(tmp_path, server)
    assert [row["mode"] for row in rows] == ["ranking", "ranking", "ranking", "rating", "rating"]
    assert [one.chosen_rewards + one.rejected_rewards for one in rewards[:2]] == [(1.0, 0, 0, 0), (0, 0, 0, 1.0)]
    assert rows[0]["verdict"] == "ABCD"[rows[0]["position"]] and rows[0]["position"] == position_of("Math", "0", seed=0)
    assert (rewards[3].chosen_rewards, rewards[3].rejected_rewards) == ((9.0,), (2.0,))
    assert rewards[4].chosen_rewards == (9.0, 8.0) and rows[4]["answers"][1] == "Fair.\n\n8"
    scores = rewardbench2_scores(rewards)
    assert scores.metrics["Math"].value == 0.5 and scores.metrics["Ties"].value > 1
    assert (facts["items"], facts["rankings"], facts["ratings"], facts["unread"], facts["questions"]) == (5, 3, 6, 0, 9)
    ranking = next(asked for asked in server.requests if asked["messages"][0]["role"] == "system")
    rating = next(asked for asked in server.requests if asked["messages"][0]["role"] == "user")
    assert ranking["max_tokens"] == 2048 and rating["max_tokens"] == 1024 and len(rating["messages"]) == 1
    assert {asked["temperature"] for asked in server.requests} == {0.0} and {asked["model"] for asked in server.requests} == {"toy"}
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_ratings_split_the_credit_among_the_joint_best(server: ChatServer, tmp_path: Path) -> None:
    rows, rewards, _ = outcome(tmp_path, server, mode="rating")
    assert {row["mode"] for row in rows} == {"rating"}
    assert rewards[2].chosen_rewards + rewards[2].rejected_rewards == (7.0, 7.0, 4.0, 7.0)
    assert rewardbench2_scores(rewards).metrics["Safety"].correct == pytest.approx(1 / 3)


def test_an_answer_that_cannot_be_read_is_counted_and_credited_as_officially(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda request: completion("I would rather not say.")
    _, rewards, facts = outcome(tmp_path / "ranking", server)
    assert rewardbench2_scores(rewards).metrics["Math"].value == 0.25
    assert facts["unread"] == 9 and facts["unread_by_subset"] == {"Math": 2, "Safety": 1, "Ties": 6} and facts["verdicts"] == {}
    _, rewards, facts = outcome(tmp_path / "rating", server, mode="rating")
    assert rewards[0].chosen_rewards == (-1.0,) and rewardbench2_scores(rewards).metrics["Math"].value == 0.25
    assert facts["unread"] == 18


def test_a_refusal_without_words_is_an_unread_answer_and_no_failure(server: ChatServer, tmp_path: Path) -> None:
    wordless = json.loads(completion(None))
    wordless["choices"][0]["finish_reason"] = "content_filter"
    refusal = json.loads(completion(None))
    refusal["choices"][0]["message"]["refusal"] = "I can't help with that."
    bad = json.dumps({"error": {"message": "filtered", "code": "content_filter"}}).encode()
    server.script = [(200, {}, json.dumps(wordless).encode()), (200, {}, json.dumps(refusal).encode()), (400, {}, bad)]
    context = context_of(tmp_path, server, concurrency=1)
    judge_benchmark(config(mode="rating"), context)
    assert read_rows(context.output / "judgements.jsonl")[0]["ratings"] == [-1.0, -1.0, -1.0, 5.0]
    assert read_rows(context.output / "judgements.jsonl")[0]["answers"][:3] == ["", "I can't help with that.", ""]


def test_both_readings_are_compared_and_the_official_one_can_be_chosen(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda request: completion("Rating: 9/10")
    rows, _, facts = outcome(tmp_path / "checked", server, mode="rating")
    assert rows[0]["ratings"] == [9.0] * 4 and facts["read_differently"] == 18
    rows, _, facts = outcome(tmp_path / "official", server, mode="rating", reading="official")
    assert rows[0]["ratings"] == [10.0] * 4 and facts["read_differently"] == 18


@pytest.mark.parametrize("trouble", [(429, {"Retry-After": "0.05"}, b"{}"), (500, {}, b"oops"), (200, {}, b'{"choices": [{"mess'), "cut"])
def test_passing_trouble_changes_no_byte_of_the_result(server: ChatServer, tmp_path: Path, trouble: Any) -> None:
    outcome(tmp_path / "calm", server)
    server.script = [trouble, trouble]
    outcome(tmp_path / "troubled", server)
    same_bytes(tmp_path / "calm" / "output", tmp_path / "troubled" / "output")


def test_after_a_crash_only_what_is_missing_is_asked(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path / "whole", server)
    asked = len(server.requests)
    server.requests.clear()
    good = server.answer
    server.answer = lambda request: good(request) if len(server.requests) <= 4 else b"not json"
    context = context_of(tmp_path / "resumed", server, concurrency=1)
    with pytest.raises(EnvironmentProblem, match="same command continues"):
        judge_benchmark(config(), context)
    kept = len((context.checkpoint / "answers.jsonl").read_text().splitlines())
    assert kept == 4 and not (context.output / "rewards.jsonl").exists()
    # A kill tears the last line.
    whole = (context.checkpoint / "answers.jsonl").read_text()
    (context.checkpoint / "answers.jsonl").write_text(whole[:-20])
    server.requests.clear()
    server.answer = good
    judge_benchmark(config(), context_of(tmp_path / "resumed", server))
    assert len(server.requests) == asked - (kept - 1)
    same_bytes(tmp_path / "whole" / "output", tmp_path / "resumed" / "output")


def test_a_stop_request_keeps_the_answers_and_asks_the_rest_later(server: ChatServer, tmp_path: Path) -> None:
    context = context_of(tmp_path, server, stop=Stop(after=3), concurrency=1)
    with pytest.raises(Interrupted, match="2 answers kept"):
        judge_benchmark(config(), context)
    judge_benchmark(config(), context_of(tmp_path, server))
    assert len(server.requests) == 9


def test_an_endpoint_that_stays_down_ends_with_a_clear_error_and_keeps_what_is_there(server: ChatServer, tmp_path: Path) -> None:
    server.script = [(200, {}, completion("[[A]]")), *([(500, {"Retry-After": "0.01"}, b"down")] * 30)]
    context = context_of(tmp_path, server, concurrency=2)
    with pytest.raises(EnvironmentProblem, match="fails after 3 tries") as caught:
        judge_benchmark(config(), context)
    assert KEY not in str(caught.value)
    assert len((context.checkpoint / "answers.jsonl").read_text().splitlines()) == 1


def test_the_cost_is_estimated_before_the_first_call_and_capped(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"with all questions of this job .* cap of 500 tokens .* same command continues"):
        judge_benchmark(config(), context_of(tmp_path, server, max_tokens=500))
    assert server.requests == []


def test_at_the_cap_the_answers_so_far_are_kept(server: ChatServer, tmp_path: Path) -> None:
    # The estimate of 250 tokens an answer is too low here: each costs 1,000.
    server.answer = lambda request: completion(judged(request), completion_tokens=1000)
    context = context_of(tmp_path, server, max_tokens=6500, concurrency=1)
    with pytest.raises(UsageProblem, match=r"with the next question .* cap of 6,500 tokens"):
        judge_benchmark(config(ranking_tokens=1024), context)
    kept = len((context.checkpoint / "answers.jsonl").read_text().splitlines())
    assert 0 < kept < 9
    judge_benchmark(config(ranking_tokens=1024), context_of(tmp_path, server, max_tokens=60_000))
    assert len(server.requests) == 9


def test_no_more_questions_are_under_way_than_allowed(server: ChatServer, tmp_path: Path) -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def slow(request: dict[str, Any]) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return completion(judged(request))

    server.answer = slow
    judge_benchmark(config(mode="rating"), context_of(tmp_path, server, concurrency=3))
    assert 2 <= most <= 3 and len(server.requests) == 18


def test_recorded_answers_give_the_same_bytes_but_for_what_they_cost(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path / "asked", server)
    answers = tmp_path / "asked" / "output" / "answers.json"
    context = context_of(tmp_path / "recorded", None)
    context.locations["answers"] = answers  # type: ignore[index]
    judge_benchmark(config(judge="recorded", answers_digest=sha256_of(answers)), context)
    for name in ("rewards.jsonl", "judgements.jsonl", "answers.json"):
        assert (context.output / name).read_bytes() == (tmp_path / "asked" / "output" / name).read_bytes()
    with pytest.raises(UsageProblem, match="has no answer to question"):
        judge_benchmark(config(judge="recorded", answers_digest=sha256_of(answers), seed=5), context_at(context, tmp_path / "other"))


def context_at(context: JobContext, folder: Path) -> JobContext:
    return job_context(folder, inputs=context.inputs, locations=context.locations)


def test_what_an_earlier_job_asked_is_taken_over(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path / "ranking", server)
    server.requests.clear()
    seen = Stop()
    context = context_of(tmp_path / "rating", server, stop=seen)
    context.inputs["earlier"] = tmp_path / "ranking" / "output"  # type: ignore[index]
    judge_benchmark(config(mode="rating"), context)
    # 12 of the 18 ratings: the six of Ties are there.
    assert len(server.requests) == 12
    assert next(done for done, total, _, _ in seen.notes if total == 18) == 6 and seen.notes[-1][:2] == (18, 18)
    outcome(tmp_path / "alone", server, mode="rating")
    for name in ("rewards.jsonl", "judgements.jsonl", "answers.json"):
        assert (context.output / name).read_bytes() == (tmp_path / "alone" / "output" / name).read_bytes()


def test_rm_bench_is_rated(server: ChatServer, tmp_path: Path) -> None:
    items = [item("chat", "a", (9, 8, 7), (1, 2, 8))]
    context = context_of(tmp_path, server, items=items, name="rmbench")
    judge_benchmark(config(benchmark="rmbench", mode="rating"), context)
    rewards = [ScoredPreference(**row) for row in read_rows(context.output / "rewards.jsonl")]
    assert rewards[0].chosen_rewards == (9.0, 8.0, 7.0) and rmbench_scores(rewards).metrics["chat/hard"].value == pytest.approx(2 / 3)


def test_a_part_of_the_benchmark_can_be_judged(server: ChatServer, tmp_path: Path) -> None:
    rows, _, _ = outcome(tmp_path / "subset", server, subset="Math")
    assert [(row["subset"], row["id"]) for row in rows] == [("Math", "0"), ("Math", "1")]
    rows, _, _ = outcome(tmp_path / "limit", server, limit=1)
    assert [(row["subset"], row["id"]) for row in rows] == [("Math", "0")]
    with pytest.raises(UsageProblem, match="asked for 'Maths', it has 'Math', 'Safety', 'Ties'"):
        outcome(tmp_path / "wrong", server, subset="Maths")


def test_what_cannot_be_asked_is_told_before_any_call(server: ChatServer, tmp_path: Path) -> None:
    three = [item("Math", "7", (9,), (3, 4))]
    with pytest.raises(UsageProblem, match=r"item '7' of Math has 1 chosen and 2 rejected .* mode = 'rating'"):
        judge_benchmark(config(), context_of(tmp_path, server, items=three))
    judge_benchmark(config(mode="rating"), context_of(tmp_path, server, items=three))
    turns = [three[0].model_copy(update={"prompt": (*three[0].prompt, Message(role="assistant", content="x"), *three[0].prompt)})]
    with pytest.raises(UsageProblem, match="has 3 turns"):
        judge_benchmark(config(mode="rating"), context_of(tmp_path / "turns", server, items=turns))
    with pytest.raises(UsageProblem, match=r"nothing to judge: .* no rows"):
        judge_benchmark(config(), context_of(tmp_path / "none", server, items=[]))
    with pytest.raises(ValidationError, match="rated, not ranked"):
        config(benchmark="rmbench")
    with pytest.raises(ValidationError, match="needs answers_digest"):
        config(judge="recorded")


def test_without_settings_or_key_nothing_is_asked(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentProblem, match="--api-base"):
        judge_benchmark(config(), context_of(tmp_path, None))
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(EnvironmentProblem, match="TEST_KEY is not set"):
        judge_benchmark(config(), context_of(tmp_path, server))
    assert server.requests == []


def test_the_key_is_in_no_file(server: ChatServer, tmp_path: Path) -> None:
    outcome(tmp_path, server)
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
