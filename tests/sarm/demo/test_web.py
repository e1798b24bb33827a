"""The page's server as programs meet it: what it answers, and whom it answers nothing."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_models import PROMPT, REPLIES, Server, served, write_sarm

from sarm.demo import answers
from sarm.job import UsageProblem

ASKED = {"prompt": PROMPT, "answers": list(REPLIES)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("web")
    with served(write_sarm(folder / "model"), save=folder / "saved") as found:
        yield found


def test_the_page_and_its_parts_come_with_a_policy_that_loads_nothing_from_elsewhere(server: Server) -> None:
    for path, kind in (("/", "text/html"), ("/demo.css", "text/css"), ("/demo.js", "javascript")):
        answer = server.ask(path)
        assert answer.status == 200 and kind in answer.headers["content-type"]
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "access-control-allow-origin" not in {name.lower() for name in answer.headers}
        assert "http://" not in answer.content and "https://" not in answer.content and "innerHTML" not in answer.content


def test_rewards_and_facts_come_as_json(server: Server) -> None:
    facts = server.ask("/model").content
    assert (facts["name"], facts["n_latents"], facts["layer"], facts["saves"]) == ("model", 24, 2, True)
    answer = server.ask("/score", ASKED)
    assert answer.status == 200 and len(answer.content["answers"]) == 2 and answer.content["difference"]["bars"]


def test_a_steering_file_is_given_and_written_to_the_folder(server: Server) -> None:
    answer = server.ask("/steering", {"factors": {"7": 2.5, "3": 1}})
    assert answer.status == 200
    file = json.loads(answer.content["text"])
    assert file["factors"] == {"7": 2.5} and file["schema_version"] == "1.0" and file["model"]["n_latents"] == 24
    assert Path(answer.content["saved"]).read_text() == answer.content["text"] and answer.content["name"] in answer.content["saved"]
    assert any(answer.content["saved"] in line for line in server.told)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.7", "", "[::1]"])
@pytest.mark.parametrize("path", ["/", "/model", "/demo.js"])
def test_another_name_for_this_machine_gets_nothing(server: Server, host: str, path: str) -> None:
    answer = server.ask(path, host=host)
    assert answer.status == 421 and answer.content == {"problem": "this server answers to 127.0.0.1 and localhost alone"}


def test_a_forwarded_port_is_served(server: Server) -> None:
    assert server.ask("/model", host="localhost:9999").status == 200
    assert server.ask("/score", ASKED, host="localhost:9999", origin="http://localhost:9999").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_page_of_another_site_gets_nothing(server: Server, headers: dict[str, str]) -> None:
    for answer in (server.ask("/score", ASKED, **headers), server.ask("/model", **headers), server.ask("/open", **headers)):
        assert answer.status == 403 and answer.content == {"problem": "this server answers to its own page alone"}


def test_what_a_form_of_another_site_could_post_is_refused(server: Server) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert server.ask("/score", raw=json.dumps(ASKED).encode(), content_type=kind).status == 415
    asking = server.ask("/score", method="OPTIONS", origin="http://evil.example", access_control_request_method="POST")
    assert asking.status == 403 and "access-control-allow-origin" not in {name.lower() for name in asking.headers}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"prompt": "x", "prompt": "y", "answers": ["a"]}', "stands twice"),
        (b'{"prompt": "\\ud800", "answers": ["a"]}', "no JSON"),
        (b'{"prompt": "x", "answers": []}', "answers"),
        (b'{"prompt": "x", "answers": ["a", "b", "c"]}', "answers"),
        (b'{"prompt": "x", "answers": ["a"], "factors": {"-3": 2}}', "factors"),
        (b'{"prompt": "x", "answers": ["a"], "factors": {"3": NaN}}', "factors"),
        (b'{"prompt": "x", "answers": ["a"], "factors": {"3": 1e999}}', "factors"),
        (b'{"prompt": "x", "answers": ["a"], "factors": {"24": 2}}', "latent 24"),
        (b'{"prompt": "x", "answers": ["a"], "folder": "/etc"}', "folder"),
        (b'{"prompt": "", "answers": ["a"]}', "the prompt is empty"),
        (json.dumps({"prompt": "x", "answers": ["a" * 200_001]}).encode(), "200000 characters"),
        (json.dumps({"prompt": "x", "answers": ["good " * 500]}).encode(), "tokens with the prompt, and at most 200 are read"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(server: Server, raw: bytes, problem: str) -> None:
    answer = server.ask("/score", raw=raw)
    assert answer.status == 400 and problem in answer.content["problem"] and "\n" not in answer.content["problem"]
    assert server.ask("/score", ASKED).status == 200


def test_too_much_is_refused_before_it_is_read(server: Server) -> None:
    answer = server.ask("/score", raw=b" " * (5 * 2**20))
    assert answer.status == 413 and "4 MiB" in answer.content["problem"]


def test_other_paths_and_ways_have_a_line_of_their_own(server: Server) -> None:
    assert server.ask("/%2e%2e/answers.py").status == 404 and server.ask("/page/index.html").status == 404
    assert server.ask("/score").status == 405 and server.ask("/model", ASKED).status == 405


@pytest.mark.parametrize(("error", "status"), [(UsageProblem("a template refuses it"), 400), (RuntimeError("a <b>broken</b>\nmodel"), 500)])
def test_a_problem_of_the_model_is_told_and_the_server_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, status: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(answers.AskedModel, "score", fails)
    answer = server.ask("/score", ASKED)
    assert answer.status == status and str(error).splitlines()[0] in answer.content["problem"] and "\n" not in answer.content["problem"]
    kept = [path.read_text() for path in tmp_path.rglob("*-traceback.txt")]
    assert len(kept) == (status == 500) and all("RuntimeError" in text for text in kept)
    monkeypatch.undo()
    assert server.ask("/score", ASKED).status == 200


def test_one_question_is_asked_at_a_time_and_too_many_that_wait_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def slow(*_: object) -> dict[str, object]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        go.wait(30)
        with lock:
            at_once -= 1
        return {}

    monkeypatch.setattr(answers.AskedModel, "score", slow)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(server.ask("/score", ASKED).status)) for _ in range(12)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(found) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found == [503] * 4
    go.set()
    for thread in threads:
        thread.join()
    assert found[4:] == [200] * 8 and most == 1


def test_a_page_that_was_closed_is_told(server: Server) -> None:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    link.request("GET", "/open")
    answer = link.getresponse()
    assert answer.status == 200 and answer.read(3) == b":\n\n"
    answer.close()
    link.close()
    deadline = time.monotonic() + 20
    while not any("the page was closed" in line for line in server.told) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any("the page was closed" in line for line in server.told)
    assert server.ask("/score", ASKED).status == 200
