"""What of the environment reaches an endpoint, and where questions and keys may go."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator

import pytest
from chat_server import KEY, ChatServer, chat_server, completion

from sarm.job import EnvironmentProblem, UsageProblem
from sarm.judges import connection
from sarm.judges.endpoint import EndpointJudge
from sarm.judges.loopback import is_loopback
from sarm.judges.questions import Question
from sarm.judges.settings import EndpointSettings

QUESTION = Question("be short", "what is it?", 50)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    for name in (one for base in connection.PROXY_VARIABLES for one in (base, base.lower())):
        monkeypatch.delenv(name, raising=False)
    with chat_server() as running:
        running.answer = lambda request: completion("a dog")
        yield running


def judge(settings: EndpointSettings) -> EndpointJudge:
    return EndpointJudge(settings, model="toy", temperature=0.0)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost."])
def test_this_machine_is_known_by_all_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "128.0.0.1", "0.0.0.0", "example.com", "::2", ""])
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "http_proxy", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_no_proxy_sees_a_question_to_this_machine(server: ChatServer, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str) -> None:
    with chat_server() as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("http", scheme))
        assert judge(server.settings()).answer(QUESTION).text == "a dog"
        assert proxy.requests == [] and proxy.keys == []


def test_another_host_is_reached_through_the_proxy_of_the_environment(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert judge(server.settings(api_base="http://judge.invalid/v1")).answer(QUESTION).text == "a dog"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match=r"cannot be reached through the proxy of HTTP_PROXY after 1 tries \("):
        judge(server.settings(api_base="http://judge.invalid/v1", retries=0)).answer(QUESTION)


@pytest.mark.parametrize(("proxy", "words"), [("socks5://user:hush@127.0.0.1:9", "socksio"), ("gopher://127.0.0.1:9", "no URL of a proxy")])
def test_a_proxy_that_cannot_be_used_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, proxy: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(EnvironmentProblem, match=f"ALL_PROXY names cannot be used: .*{words}") as caught:
        judge(EndpointSettings(api_base="http://judge.invalid/v1", key_variable=""))
    assert "hush" not in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 7


def test_nothing_of_the_environment_but_the_named_key_leaves(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, f"hidden-{name}")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: hidden-gateway\nAuthorization: Bearer hidden-other")
    judge(server.settings()).answer(QUESTION)
    judge(server.settings(key_variable="")).answer(QUESTION)
    assert server.keys == [f"Bearer {KEY}", ""]
    assert "hidden" not in str(server.headers)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_neither_question_nor_key_follows_a_redirect(server: ChatServer, status: int) -> None:
    with chat_server() as other:
        server.script = [(status, {"Location": f"{other.url}/chat/completions"}, b"")] * 3
        with pytest.raises(UsageProblem, match=f"sends us on to {other.url}.*--api-base"):
            judge(server.settings()).answer(QUESTION)
        assert other.requests == [] and other.keys == []


def test_an_answer_without_an_end_or_packed_is_no_answer(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 2**21)
    server.script = ["drip"]
    assert judge(server.settings()).answer(QUESTION).text == "a dog"
    server.script = [(200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 2**24 + completion("bomb")))]
    assert judge(server.settings()).answer(QUESTION).text == "a dog"
    assert all(headers["Accept-Encoding"] == "identity" for headers in server.headers)
