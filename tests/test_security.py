"""What SECURITY.md promises: nothing of others is executed, nothing leaves the machine unasked, a key is written nowhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import KEY, chat_server, completion
from folders import ROOT
from tiny_profile import write_profile

PRODUCT = {str(file.relative_to(ROOT)): file for folder in ("sarm", "replication") for file in sorted((ROOT / folder).rglob("*.py"))}
# What runs code that stands in a file, whoever wrote it.
EXECUTING = ("cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code", "yaml")
# Who may open a connection, and through what: the hub, the judges' endpoints, one file of nltk's, one short question of the doctor's;
# and who may answer one.
CONNECTING = {
    "httpx": {"sarm/judges/connection.py"},
    "openai": {"sarm/judges/connection.py", "sarm/judges/endpoint.py"},
    "urllib.request": {"replication/cli/doctor.py", "sarm/jobs/data/splitter.py", "sarm/judges/connection.py", "sarm/judges/loopback.py"},
    "huggingface_hub": {
        *("replication/cli/doctor.py", "replication/cli/files.py", "replication/hub_fetch.py"),
        # Takes from it the name of an error.
        "sarm/checkpoints/config_files.py",
        *("sarm/checkpoints/hub.py", "sarm/jobs/data/splitter.py", "sarm/jobs/weights/import_sae.py", "sarm/judges/loopback.py"),
    },
    # A host's name, and ports of this machine.
    "socket": {"sarm/store/staging.py", "replication/launch/torchrun.py", "sarm/demo/__main__.py"},
    # Which answer the page of `replicate demo`, and ask nobody.
    "starlette": {"sarm/demo/__main__.py", "sarm/demo/web.py"},
    "uvicorn": {"sarm/demo/__main__.py"},
}
NEVER_CONNECTING = ("requests", "aiohttp", "urllib3", "http.client", "ftplib", "smtplib", "wandb", "sentry_sdk", "websockets")
TOKEN = "hf-planted-0123456789"
# Loaded by Python before anything else: notes who is called and lets only the judges' server through.
HOOK = """
import os, socket, sys
with open(os.environ["CALLS"] + ".watched", "a") as log: print(sys.orig_argv, file=log)
real = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[1] != int(os.environ["MAY_CALL"]):
        with open(os.environ["CALLS"], "a") as log: print("connect", address, sys.argv, file=log)
        raise OSError("no connection in this test")
    return real(self, address)
def connect_ex(self, address):
    connect(self, address)
    return 0
def look_up(name, *rest, looked_up=socket.getaddrinfo, **more):
    if name not in ("127.0.0.1", "localhost", "::1"):
        with open(os.environ["CALLS"], "a") as log: print("look up", name, sys.argv, file=log)
        raise OSError("no look-up in this test")
    return looked_up(name, *rest, **more)
socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, look_up
"""


def calls(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and keyword arguments of every call in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg or "**": ast.unparse(word.value) for word in node.keywords}


def imported(file: Path) -> set[str]:
    """All modules that a file imports, with those that they lie in."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        found |= {".".join(name.split(".")[:cut]) for name in names for cut in range(1, name.count(".") + 2)}
    return found


@pytest.mark.parametrize("name", PRODUCT)
def test_no_file_of_others_is_executed(name: str) -> None:
    for call, words in calls(PRODUCT[name]):
        last = call.rpartition(".")[2]
        assert call not in ("eval", "exec", "compile", "__import__") and last not in ("Unpickler", "read_pickle", "load_pickle"), call
        assert not call.startswith("pickle.load"), call
        assert words.get("shell", "False") == "False", call
        assert words.get("trust_remote_code", "False") == "False", call
        if call == "torch.load":
            assert words.get("weights_only") == "True", call
        if call in ("np.load", "numpy.load"):
            assert words.get("allow_pickle") == "False", call
    assert not imported(PRODUCT[name]) & set(EXECUTING)


def test_the_two_readers_that_could_run_a_pickle_are_the_ones_that_are_known() -> None:
    reading = {(name, call) for name, file in PRODUCT.items() for call, _ in calls(file) if call in ("torch.load", "np.load", "numpy.load")}
    assert {name for name, call in reading if call == "torch.load"} == {"sarm/checkpoints/tensors.py"}
    assert "sarm/checkpoints/saes/gemma_scope.py" in {name for name, _ in reading}


def test_only_these_files_open_connections() -> None:
    for library, files in CONNECTING.items():
        assert {name for name, file in PRODUCT.items() if library in imported(file)} <= files, library
    assert not {name: found for name, file in PRODUCT.items() if (found := imported(file) & set(NEVER_CONNECTING))}


@pytest.mark.slow
def test_a_whole_run_calls_its_judge_alone_and_writes_its_key_nowhere(tmp_path: Path) -> None:
    for folder in ("hook", "home", "tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    profile = write_profile(tmp_path)
    with chat_server() as server:
        server.answer = lambda request: completion("[[A]]\nRating: 7")
        options = ["--profile", str(profile), "--judge", "gpt-4.1", "--api-base", server.url, "--yes"]
        places = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
        # Without HF_HUB_OFFLINE: what would call home is not to be held back by a switch.
        base = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "OPENAI_"))}
        base |= {"PYTHONPATH": os.pathsep.join((str(tmp_path / "hook"), str(ROOT))), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        base |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "OPENAI_API_KEY": KEY, "HF_TOKEN": TOKEN}
        base |= {"CALLS": str(tmp_path / "calls.txt"), "MAY_CALL": server.url.rpartition(":")[2].partition("/")[0]}
        command = [sys.executable, "-m", "replication.cli", "table1", *options, *places]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=base, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        assert server.requests and set(server.keys) == {f"Bearer {KEY}"}
        assert TOKEN not in str(server.requests) + str(server.headers)
    watched = (tmp_path / "calls.txt.watched").read_text(encoding="utf-8")
    assert "replication.cli" in watched and "sarm.jobs" in watched
    called = tmp_path / "calls.txt"
    assert not called.exists(), called.read_text(encoding="utf-8")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 50
    holding = [str(path) for path in written for secret in (KEY, TOKEN) if secret.encode() in path.read_bytes()]
    assert not holding and KEY not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr


def test_the_hook_of_that_run_notes_a_call(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    code = "import socket, urllib.request\ntry: urllib.request.urlopen('http://example.invalid')\nexcept OSError: pass\n"
    code += "try: socket.socket().connect(('127.0.0.1', 9))\nexcept OSError: pass\n"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CALLS": str(tmp_path / "calls.txt"), "MAY_CALL": "1", "no_proxy": "*"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    noted = (tmp_path / "calls.txt").read_text(encoding="utf-8")
    assert "look up example.invalid" in noted and "connect ('127.0.0.1', 9)" in noted
