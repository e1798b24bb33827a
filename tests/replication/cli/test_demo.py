"""`replicate demo` as a command: what it refuses before a model is opened, and that its process ends with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from asked_models import write_sarm
from command_line import replicate
from folders import ROOT

from replication.cli import demo as command
from sarm.job import EnvironmentProblem


def missing() -> bool:
    return any(__import__("importlib.util").util.find_spec(name) is None for name in command.NEEDED)


installed = pytest.mark.skipif(missing(), reason="the extra `demo` is not installed; run: make venv")


@contextmanager
def started(*arguments: str | Path, module: str = "replication.cli", stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """`replicate demo` (or its process alone) and, afterwards, nothing of it."""
    begin = ["demo"] if module == "replication.cli" else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *begin, *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    family = [psutil.Process(process.pid)]
    try:
        yield process
    finally:
        family += [child for child in family[0].children(recursive=True)] if family[0].is_running() else []
        for one in reversed(family):
            if one.is_running():
                one.kill()
        process.communicate()


def said(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """How it ended and what it said."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_what_is_wrong_is_told_at_once_and_together(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = ("--end-of-turn", "x", "--pooling", "last-token", "--save", str(tmp_path / "file"))
    done = replicate("demo", "--model", str(tmp_path / "nothing"), *wrong)
    assert done.returncode == 2 and not done.stdout
    for part in ("nothing does not exist", "give one of them", "file is no folder"):
        assert part in done.stderr


def test_a_missing_extra_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NEEDED", ("starlette_that_is_not_here",))
    with pytest.raises(EnvironmentProblem, match=r"needs starlette_that_is_not_here, .*pip install 'replicate-sarm\[demo\]'") as found:
        command.demo(model=tmp_path)
    assert found.value.exit_code == 7


def test_the_process_alone_names_a_missing_extra_too(tmp_path: Path) -> None:
    code = "import sys; sys.modules['starlette'] = None; from sarm.demo.__main__ import main; sys.exit(main(['--model', sys.argv[1]]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 7 and done.stderr.startswith("replicate: the demo needs starlette and uvicorn") and "Trace" not in done.stderr


@installed
def test_a_busy_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started("--model", tmp_path, "--port", str(port)) as process:
            assert said(process) == (7, "", f"replicate: port {port} is in use; choose another with --port, or --port 0 for a free one\n")


@installed
def test_explanations_that_are_nowhere_are_told(tmp_path: Path) -> None:
    with started("--model", tmp_path, "--explanations", "abc", "--store", tmp_path / "store") as process:
        code, _, err = said(process)
    assert code == 2 and "--explanations 'abc' is no folder and no key of explain_latents; see: replicate store list" in err


@pytest.mark.slow
@installed
def test_a_folder_that_is_no_model_ends_with_one_line(tmp_path: Path) -> None:
    with started("--model", tmp_path, "--port", "0") as process:
        code, out, err = said(process)
    assert code in (2, 7) and not out and "Traceback" not in err
    assert len(err.splitlines()) == 2 and err.splitlines()[1].startswith(f"replicate: {tmp_path.name}: ")


@pytest.mark.slow
@installed
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_it_ends_cleanly_with_all_its_processes(tmp_path: Path, number: signal.Signals) -> None:
    with started("--model", write_sarm(tmp_path / "model"), "--port", "0") as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        assert url.startswith("http://127.0.0.1:")
        score(url.strip())
        family = descendants(process)
        # The page's process and the one that renders chat templates.
        assert len(family) >= 2
        process.send_signal(number)
        code, _, err = said(process, 30)
        assert gone(family) and "Traceback" not in err
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert number == signal.SIGKILL or err.endswith("replicate: the demo has ended\n")


@pytest.mark.slow
@installed
def test_it_ends_while_it_still_opens_the_model(tmp_path: Path) -> None:
    with started("--model", write_sarm(tmp_path / "model"), "--port", "0") as process:
        assert process.stderr is not None and "opening model" in process.stderr.readline()
        family = descendants(process)
        process.send_signal(signal.SIGINT)
        started_at = time.monotonic()
        code, out, err = said(process, 30)
        assert gone(family) and code == 130 and not out and "Traceback" not in err and time.monotonic() - started_at < 20


def score(url: str, headers: Mapping[str, str] | None = None) -> None:
    """One question, so that everything has started."""
    import json
    import urllib.request

    asked = json.dumps({"prompt": "tell me about the dog", "answers": ["a good dog."]}).encode()
    request = urllib.request.Request(url + "score", data=asked, headers={"content-type": "application/json", **(headers or {})})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        assert json.load(answer)["answers"][0]["bars"]
