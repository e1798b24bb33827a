"""The endpoint's options, and the whole way of judges on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import KEY, ChatServer, chat_server, completion
from folders import ROOT
from tiny_profile import write_profile

from replication.cli.options.endpoint import Endpoint
from replication.cli.running.runs import settings_of
from replication.recipes.requested import Chosen
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS
from replication.settings.judges import TABLE1_JUDGES
from replication.usage_problems import UsageProblems
from sarm.store.artifacts import ArtifactStore

GPT = next(row for row in TABLE1_JUDGES if row.name == "gpt-4.1")


def settings(store: ArtifactStore, endpoint: Endpoint, rows: str = "") -> Setting:
    (found,) = settings_of([EXPERIMENTS["table1"]], Chosen(rows=rows), store, fresh=False, endpoint=endpoint)
    return found


def test_rows_or_judge_options_say_who_is_asked(tmp_path: Path) -> None:
    store, base = ArtifactStore(tmp_path), "http://localhost:1/v1"
    assert settings(store, Endpoint()).judging.asked == ()
    assert settings(store, Endpoint(api_base=base), rows="gpt-4.1").judging.asked == (GPT,)
    assert [row.model for row in settings(store, Endpoint(api_base=base, judge_model="x"), rows="gpt-4.1").judging.asked] == ["x"]
    chosen = settings(store, Endpoint(api_base=base, judges=("gpt-4.1", "local=y"), limits={"concurrency": 7}))
    assert [row.name for row in chosen.judging.asked] == ["gpt-4.1", "local"]
    assert json.loads(Path(chosen.endpoint).read_text())["concurrency"] == 7


@pytest.mark.parametrize(
    ("endpoint", "rows", "words"),
    [
        (Endpoint(api_base="http://localhost:1/v1"), "", "without a judge"),
        (Endpoint(api_base="http://localhost:1/v1", judge_model="x"), "gpt-*", "2 judges are asked"),
        (Endpoint(answers=Path("a.json")), "gpt-*", "answers are of one judge"),
        (Endpoint(judges=("gpt",)), "", "no such judge"),
    ],
)
def test_unclear_wishes_are_refused(endpoint: Endpoint, rows: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblems, match=words):
        settings(ArtifactStore(tmp_path), endpoint, rows)


def test_every_run_has_settings_of_its_own_and_the_same_command_finds_its_own_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    one = Endpoint(api_base="http://a:1/v1", key_variable="KEY_A", judges=("one=m1",))
    two = Endpoint(api_base="http://b:1/v1", key_variable="KEY_B", judges=("two=m2",), max_cost=1.0)
    first, second = settings(store, one), settings(store, two)
    assert json.loads(Path(first.endpoint).read_text())["api_base"] == "http://a:1/v1"
    assert json.loads(Path(second.endpoint).read_text())["key_variable"] == "KEY_B"
    assert first.endpoint != second.endpoint and first.spending != second.spending
    again = settings(store, one)
    assert (again.endpoint, again.spending) == (first.endpoint, first.spending)
    # A higher cap is another setting of the same run: what was spent counts.
    more = settings(store, replace(one, max_cost=9.0))
    assert more.endpoint != first.endpoint and more.spending == first.spending
    assert settings(store, replace(one, judges=("one=m1", "two=m2"))).spending != first.spending


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (Endpoint(api_base="https://user:hush@host/v1", judges=("a=m",)), "--api-base: .*carries a user, a password"),
        (Endpoint(api_base="https://host/v1?key=hush", judges=("a=m",)), "--api-base: .*a query"),
        (Endpoint(api_base="https://host:hush/v1", judges=("a=m",)), "--api-base: .*port is no number"),
        (Endpoint(api_base="http://host/v1", judges=("a=m",), max_cost=float("nan")), "--max-cost: .*finite"),
        (Endpoint(api_base="http://host/v1", judges=("a=m",), limits={"timeout_seconds": float("inf")}), "--request-timeout: .*finite"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_untold_and_written_nowhere(endpoint: Endpoint, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblems, match=words) as caught:
        settings(ArtifactStore(tmp_path), endpoint)
    assert "hush" not in str(caught.value) and not list(tmp_path.rglob("*.json"))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.answer = lambda request: completion("[[B]]" if request["messages"][0]["role"] == "system" else "Rating: 7/10")
        yield running


def replicate(store: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replication.cli", *arguments, "--store", str(store), "--out", str(store / "out")]
    base = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    base |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=base | environment, timeout=300)


@pytest.mark.slow
def test_a_judge_answers_on_the_command_line_and_what_is_answered_is_never_asked_again(server: ChatServer, tmp_path: Path) -> None:
    """The whole way: refused at the cap before any call, then asked, then reused, then read from the answers alone."""
    profile = write_profile(tmp_path)
    store = tmp_path / "store"
    asked = ("table1", "--profile", str(profile), "--judge", "gpt-4.1", "--rows", "gpt-4.1", "--api-base", server.url)
    capped = replicate(store, *asked, "--max-cost", "0.001", OPENAI_API_KEY=KEY)
    assert capped.returncode == 2 and "above the cap" in capped.stderr and server.requests == []
    without_key = replicate(store, *asked)
    assert without_key.returncode == 7 and "OPENAI_API_KEY is not set" in without_key.stderr and server.requests == []
    done = replicate(store, *asked, OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    count = len(server.requests)
    assert count > 20
    table = (store / "out" / "tiny" / "table1.md").read_text(encoding="utf-8")
    assert "could not be read" in table
    again = replicate(store, *asked)
    assert again.returncode == 0 and len(server.requests) == count
    (answers,) = store.glob("judge_benchmark/*/answers.json")
    recorded = replicate(store, *asked[:-2], "--answers", str(answers))
    assert recorded.returncode == 0 and len(server.requests) == count
    for path in (one for one in store.rglob("*") if one.is_file()):
        assert KEY.encode() not in path.read_bytes()


@pytest.mark.slow
def test_two_runs_on_one_store_ask_their_own_endpoints_with_their_own_keys(tmp_path: Path) -> None:
    profile, store = write_profile(tmp_path), tmp_path / "store"
    keys = {"KEY_ONE": f"{KEY}-one", "KEY_TWO": f"{KEY}-two"}
    with chat_server() as one, chat_server() as two:

        def slowly(request: dict[str, Any]) -> bytes:
            time.sleep(0.2)
            return completion("[[B]]" if request["messages"][0]["role"] == "system" else "7")

        one.answer = slowly
        two.answer = lambda request: completion("[[A]]" if request["messages"][0]["role"] == "system" else "8")

        def asked(name: str, server: ChatServer) -> tuple[str, ...]:
            own = ("--judge", f"{name}=model-{name}", "--rows", name, "--api-base", server.url, "--api-key-env", f"KEY_{name.upper()}")
            return ("table1", "--profile", str(profile), *own, "--concurrency", "1")

        with ThreadPoolExecutor() as pool:
            first = pool.submit(replicate, store, *asked("one", one), **keys)
            while not one.requests and not first.done():
                time.sleep(0.1)
            second = replicate(store, *asked("two", two), **keys)
            assert (first.result().returncode, second.returncode) == (0, 0), first.result().stderr + second.stderr
        for name, server in (("one", one), ("two", two)):
            assert {request["model"] for request in server.requests} == {f"model-{name}"}
            assert set(server.keys) == {f"Bearer {keys[f'KEY_{name.upper()}']}"}
        assert len(one.requests) == len(two.requests) > 20
        # The same judge at another address: asked for in words, and nothing is asked of anybody.
        before = len(one.requests), len(two.requests)
        elsewhere = [two.url if part == one.url else part for part in asked("one", one)]
        refused = replicate(store, *elsewhere, **keys)
        assert refused.returncode == 2 and f"answers from {one.url}, not from {two.url}; --accept-answers" in refused.stderr
        assert replicate(store, *elsewhere, "--accept-answers", **keys).returncode == 0
        assert (len(one.requests), len(two.requests)) == before


@pytest.mark.slow
def test_a_cap_holds_for_all_jobs_of_a_run_and_for_every_time_it_is_begun(server: ChatServer, tmp_path: Path) -> None:
    profile, store = write_profile(tmp_path), tmp_path / "store"
    judges = ("--judge", "one=m1", "--judge", "two=m2", "--judge-mode", "both", "--rows", "one")
    asked = ("table1", "--profile", str(profile), *judges, "--api-base", server.url, "--workers", "2")
    # A dollar a token. Every answer is as long as it may be, far longer than what is expected of it before the first call.
    prices = ("--input-price", "1000000", "--output-price", "1000000", "--max-cost", "30000")

    def said(request: dict[str, Any]) -> bytes:
        return completion("[[B]]" if request["messages"][0]["role"] == "system" else "7", completion_tokens=request["max_tokens"])

    server.answer = said
    for _ in range(2):
        capped = replicate(store, *asked, *prices, OPENAI_API_KEY=KEY)
        assert capped.returncode == 2 and "for all jobs of a run" in capped.stderr, capped.stderr
        charged = sum(10 + request["max_tokens"] for request in server.requests)
        assert 20000 < charged <= 30000
    spent = [json.loads(path.read_text()) for path in store.glob(".endpoints/*/0/*.json")]
    # The worker that is stopped because the other is at the cap may be waiting for an answer: it counts at its longest.
    assert len(spent) >= 2 and charged <= sum(sum(one.values()) for one in spent) <= 30000
