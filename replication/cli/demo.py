"""`replicate demo`: starts the process that serves the page, and ends it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

import sarm
from replication.cli.options.declared import DEFAULT_STORE, StoreOption
from replication.usage_problems import UsageProblems
from sarm.job import EnvironmentProblem
from sarm.store.artifacts import ArtifactStore

NEEDED = ("starlette", "uvicorn")
# How to get them: as in sarm/demo, which can be started by itself.
EXTRA = "pip install 'replicate-sarm[demo]' (in a checkout: make venv, or pip install -c constraints.txt -e '.[demo]')"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(  # noqa: PLR0917 - one parameter an option, as Typer wants it
    model: Annotated[Path, typer.Option("--model", help="Folder of a reward model.")],
    explanations: Annotated[
        str, typer.Option("--explanations", help="Explanations of its latents: an explain_latents artifact, by folder or key.")
    ] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of 127.0.0.1; 0 takes a free one.")] = 8765,
    save: Annotated[Path | None, typer.Option("--save", help="Folder into which steering files are written as well.")] = None,
    max_length: Annotated[int, typer.Option("--max-length", min=2, help="Longest conversation, tokens.")] = 4096,
    end_of_turn: Annotated[str, typer.Option("--end-of-turn", help="Token that ends a turn, where it is not the tokenizer's eos.")] = "",
    pooling: Annotated[
        Literal["end-of-turn", "last-token"], typer.Option("--pooling", help="Scored token: the last turn's end, or the template's last.")
    ] = "end-of-turn",
    gpus: Annotated[int, typer.Option("--gpus", min=0, max=1, help="1 takes a GPU; 0 runs on the CPU.")] = 0,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """A page on this machine: a prompt and answers in, rewards and their latents out, with sliders. Until Ctrl-C."""
    problems = [] if model.exists() else [f"--model {model} does not exist"]
    if end_of_turn and pooling == "last-token":
        problems.append("--end-of-turn names the token that is scored, and --pooling last-token asks for another; give one of them")
    if save is not None and save.exists() and not save.is_dir():
        problems.append(f"--save {save} is no folder")
    if problems:
        raise UsageProblems(problems)
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise EnvironmentProblem(f"the demo needs {' and '.join(absent)}, not installed here; run: {EXTRA}")
    command = [sys.executable, "-m", "sarm.demo", "--with-parent", "--model", str(model.resolve()), "--port", str(port)]
    command += ["--max-length", str(max_length), "--pooling", pooling, "--gpus", str(gpus)]
    command += [f"--end-of-turn={end_of_turn}"] if end_of_turn else []
    command += ["--save", str(save.absolute())] if save is not None else []
    command += ["--explanations", str(_explanations(ArtifactStore(store), explanations))] if explanations else []
    raise typer.Exit(_run(command))


def _explanations(artifacts: ArtifactStore, named: str) -> Path:
    """The folder of explanations: the one given, or the one artifact whose key begins so. Raises UsageProblems."""
    if Path(named).exists():
        return Path(named).resolve()
    found = [one for one in artifacts.entries() if one.kind == "explain_latents" and one.key.startswith(named)]
    if len(found) != 1:
        many = f"fits {len(found)} explain_latents artifacts; give more digits" if found else "is no folder and no key of explain_latents"
        raise UsageProblems([f"--explanations {named!r} {many}; see: replicate store list"])
    return artifacts.find("explain_latents", found[0].key, command="replicate features")


def _run(command: list[str]) -> int:
    """Run the page's process until it ends; gives its exit code. Signals are handed on; it also ends when this process is gone."""
    source = str(Path(sarm.__file__).resolve().parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    # The page's process asks nobody for anything, whatever a library would like to.
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths)}
    # A session of its own: the terminal's Ctrl-C must reach it once, through us.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)

    def hand_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    taken = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, hand_on) for number in taken}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.kill()
            child.wait()
    # Ended by a signal while it was still opening the model.
    return 128 - code if code < 0 else code


COMMANDS: Mapping[str, Callable[..., None]] = {"demo": demo}
