from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, ChatServer, chat_server, completion

from sarm.job import EnvironmentProblem, IntegrityProblem, JobError, UsageProblem
from sarm.judges.answers import AnswerLog
from sarm.judges.endpoint import EndpointJudge
from sarm.judges.questions import Answer, Question, Usage
from sarm.judges.recorded import RecordedJudge
from sarm.judges.settings import EndpointSettings, read_settings
from sarm.store.checksums import sha256_of

QUESTION = Question("be short", "what is it?", 50)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with chat_server() as running:
        running.answer = lambda request: completion("a dog")
        yield running


def judge(settings: EndpointSettings) -> EndpointJudge:
    return EndpointJudge(settings, model="toy", temperature=0.0)


def told(server: ChatServer, **changes: Any) -> str:
    """The message of the failure; nothing of it, nor of its traceback, holds the key."""
    with pytest.raises(JobError) as caught:
        judge(server.settings(**changes)).answer(QUESTION)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_question_is_asked_as_configured_and_its_tokens_counted(server: ChatServer) -> None:
    assert judge(server.settings()).answer(QUESTION) == Answer("a dog", Usage(10, 5), address=server.url)
    asked = server.requests[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("toy", 0.0, 50)
    assert [message["content"] for message in asked["messages"]] == ["be short", "what is it?"]
    assert server.keys == [f"Bearer {KEY}"]


def test_a_server_that_counts_no_tokens_is_estimated(server: ChatServer) -> None:
    server.answer = lambda request: json.dumps({"choices": [{"message": {"content": "a long answer"}}], "usage": None}).encode()
    usage = judge(server.settings()).answer(QUESTION).usage
    assert usage.input_tokens > 0 and usage.output_tokens == 4


@pytest.mark.parametrize("trouble", [(429, {"Retry-After": "0.05"}, b"{}"), (500, {}, b"oops"), (503, {}, b""), "close"])
def test_passing_trouble_is_retried(server: ChatServer, trouble: Any) -> None:
    server.script = [trouble]
    assert judge(server.settings()).answer(QUESTION).text == "a dog"
    assert len(server.requests) == 2


def test_retry_after_is_heeded(server: ChatServer) -> None:
    server.script = [(429, {"Retry-After": "0.9"}, b"{}")]
    start = time.monotonic()
    judge(server.settings()).answer(QUESTION)
    assert time.monotonic() - start >= 0.9


def test_lasting_rate_limits_end_with_a_clear_error(server: ChatServer) -> None:
    server.script = [(429, {"Retry-After": "0.01"}, b'{"error": {"message": "too fast"}}')] * 9
    message = told(server)
    assert message.startswith("EnvironmentProblem") and "429" in message and "too fast" in message and "same command" in message
    assert len(server.requests) == 3


def test_lasting_failures_end_with_a_clear_error(server: ChatServer) -> None:
    server.script = [(500, {"Retry-After": "0.01"}, b"<html>down</html>")] * 9
    assert "QuestionFailed" in (message := told(server)) and "500: <html>down" in message and len(server.requests) == 3


def test_a_slow_endpoint_is_given_up(server: ChatServer) -> None:
    server.script = ["slow"] * 9
    assert "no answer within 0.1 s" in told(server, timeout_seconds=0.1, retries=0)


def test_a_wrong_key_is_told_without_the_key(server: ChatServer) -> None:
    server.script = [(401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode())]
    message = told(server)
    assert "refuses the key (401: Incorrect API key provided: [key])" in message and "TEST_KEY" in message


def test_a_refused_request_quotes_the_server_without_the_key(server: ChatServer) -> None:
    server.script = [(404, {}, json.dumps({"error": {"message": f"no model toy for {KEY}"}}).encode())]
    assert told(server).startswith("UsageProblem") and len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b'{"choices": [{"mess', b"<html>hello</html>", b"[]", b"{}", b'{"choices": []}', b"null", b"\xff\xfe"],
)
def test_nonsense_is_asked_again_and_then_told(server: ChatServer, body: bytes) -> None:
    server.answer = lambda request: body
    assert "no chat completion" in told(server)
    assert len(server.requests) == 3
    server.script, server.answer = [(200, {}, body)], lambda request: completion("a dog")
    assert judge(server.settings()).answer(QUESTION).text == "a dog"


def test_an_answer_cut_short_is_retried(server: ChatServer) -> None:
    server.script = ["cut"]
    assert judge(server.settings(timeout_seconds=0.3)).answer(QUESTION).text == "a dog"


def test_a_closed_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(EnvironmentProblem, match="cannot be reached after 1 tries"):
        judge(EndpointSettings(api_base=url, key_variable="TEST_KEY", retries=0)).answer(QUESTION)


def test_a_missing_or_impossible_key_is_told_before_any_call(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "")
    assert "TEST_KEY is not set" in told(server)
    monkeypatch.setenv("TEST_KEY", "sk-…")
    assert "no key" in told(server)
    assert not server.requests
    assert judge(server.settings(key_variable="")).answer(QUESTION).text == "a dog"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "https://user:hush@host/v1", "https://host/v1?key=hush"])
def test_urls_with_secrets_or_without_scheme_are_refused_untold(tmp_path: Path, url: str) -> None:
    (tmp_path / "endpoint.json").write_text(json.dumps({"api_base": url, "tries": 3}))
    with pytest.raises(UsageProblem, match=r"api_base.*tries") as caught:
        read_settings(tmp_path / "endpoint.json")
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_settings_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="--api-base"):
        read_settings(tmp_path / "endpoint.json")


def test_recorded_answers_are_found_by_question(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({QUESTION.key: "a cat"}))
    recorded = RecordedJudge(path, digest=sha256_of(path))
    assert recorded.answer(QUESTION).text == "a cat"
    with pytest.raises(UsageProblem, match=r"no answer to question .*asked 1 times before"):
        recorded.answer(QUESTION._replace(attempt=1))
    with pytest.raises(IntegrityProblem, match="digest"):
        RecordedJudge(path, digest="0" * 64)
    with pytest.raises(EnvironmentProblem, match="no such file"):
        RecordedJudge(tmp_path / "none.json", digest="")


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_malformed_recorded_answers_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(UsageProblem, match=r"answers\.json"):
        RecordedJudge(path, digest=sha256_of(path))


class Counting:
    """A judge that counts its questions."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, question: Question) -> Answer:
        self.asked += 1
        return Answer(f"answer\n{self.asked}", Usage(100, 10))


def log_of(judge: Counting, path: Path, **caps: Any) -> AnswerLog:
    settings = EndpointSettings(api_base="http://localhost/v1", **caps) if caps else None
    return AnswerLog(judge, path, settings=settings)


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "answers.jsonl"
    first = log_of(counting, path).answer(QUESTION)
    # A kill tore the last line.
    path.write_bytes(path.read_bytes() + b'{"question": "half')
    log = log_of(counting, path)
    assert (log.answer(QUESTION).text, log.remembered, counting.asked, log.usage) == (first.text, 1, 1, Usage(100, 10))
    log.answer(QUESTION._replace(attempt=1))
    assert log_of(counting, path).remembered == 2 and counting.asked == 2


def test_questions_under_way_count_against_the_cap(tmp_path: Path) -> None:
    class Slow(Counting):
        def answer(self, question: Question) -> Answer:
            started.set()
            assert go_on.wait(10)
            return super().answer(question)

    started, go_on = threading.Event(), threading.Event()
    judge = Slow()
    # One question takes at most 5 tokens in and 50 out.
    log = log_of(judge, tmp_path / "answers.jsonl", max_tokens=80)
    first = threading.Thread(target=log.answer, args=(QUESTION,))
    first.start()
    assert started.wait(10)
    with pytest.raises(UsageProblem, match="cap of 80 tokens"):
        log.answer(QUESTION._replace(attempt=1))
    go_on.set()
    first.join(10)
    assert len(log.answers) == 1 and len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


def test_no_call_goes_beyond_a_cap(tmp_path: Path) -> None:
    counting, path = Counting(), tmp_path / "answers.jsonl"
    log = log_of(counting, path, max_tokens=160)
    log.answer(QUESTION)
    with pytest.raises(UsageProblem, match="cap of 160 tokens"):
        log.answer(QUESTION._replace(attempt=1))
    assert counting.asked == 1
    # A higher cap goes on where it stopped.
    log_of(counting, path, max_tokens=1000).answer(QUESTION._replace(attempt=1))
    with pytest.raises(UsageProblem, match=r"above the cap of .* \$0\.00"):
        log_of(counting, path, max_cost=0.0).answer(QUESTION._replace(attempt=2))
    assert counting.asked == 2
