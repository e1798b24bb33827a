"""Chat templates as text, within limits: a template is a program of somebody else, so it runs in a process that can be ended.

transformers renders templates in jinja2's sandbox, which keeps them from files and from Python, but not from two nested loops over
99,999 or from `'x' * 10**9`. No list of forbidden words would be complete; processor time and memory of a process are held by the system.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from sarm.job import EnvironmentProblem, UsageProblem

SCRIPT = Path(__file__).with_name("template_process.py")
# All that the process sees of the environment: where libraries lie. Keys and tokens are no template's business.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
# OpenBLAS, which comes with numpy, would map memory for each core.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
AT_ONCE = 64
LOOK_SECONDS = 0.05


class TemplateRefusal(ValueError):
    """A template refuses turns by raising; the message is what it said."""


class TemplateBeyondLimits(UsageProblem):
    """A template that takes more time or memory, or writes more, than any conversation needs."""


@dataclass(frozen=True)
class TemplateLimits:
    """What a template may take for one conversation: seconds of processor time (and `wall_seconds` whatever happens), memory, text."""

    seconds: float = 10.0
    wall_seconds: float = 300.0
    bytes: int = 1 << 30
    characters: int = 32_000_000


@dataclass(frozen=True)
class ChatTemplate:
    """The template `text` of the tokenizer called `name`, and the variables that it may read; `cure` tells where to put another one."""

    name: str
    text: str
    variables: Mapping[str, Any]
    cure: str
    limits: TemplateLimits = TemplateLimits()

    def written(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], names: Sequence[str], *, generation_prompt: bool = False
    ) -> list[str | TemplateRefusal]:
        """The text of each conversation, or what the template said against it.

        Raises TemplateBeyondLimits, which names the tokenizer and the conversation, and EnvironmentProblem.
        """
        request = {"template": self.text, "variables": dict(self.variables), "generation_prompt": generation_prompt}
        found: list[str | TemplateRefusal] = []
        for start in range(0, len(conversations), AT_ONCE):
            part = [[dict(turn) for turn in turns] for turns in conversations[start : start + AT_ONCE]]
            for answer in template_process(self.limits, os.getpid()).answers({**request, "conversations": part}, len(part)):
                if "beyond" in answer:
                    raise TemplateBeyondLimits(
                        f"{self.name}: the chat template {answer['beyond']} for {names[len(found)]}, more than any conversation needs; "
                        f"use another template: {self.cure}"
                    )
                found.append(answer["text"] if "text" in answer else TemplateRefusal(answer["refused"]))
        return found


class TemplateProcess:
    """A process that renders templates, started when it is first asked; one that was ended is started anew. For threads, too."""

    def __init__(self, limits: TemplateLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def answers(self, request: Mapping[str, Any], count: int) -> list[dict[str, str]]:
        """Answers to the request's `count` conversations, in order; none after one that went beyond the limits."""
        line = json.dumps(request) + "\n"
        with self._lock:
            process = self._running()
            progress = _Progress(process, self._limits)
            try:
                found = list(self._exchange(process, line, count, progress))
            except BaseException:
                # Whatever interrupts an exchange leaves answers in the pipe that belong to nobody.
                self._end(process)
                raise
            finally:
                progress.over.set()
            if found and "beyond" in found[-1]:
                self._end(process)
        return found

    def _exchange(self, process: subprocess.Popen[str], line: str, count: int, progress: _Progress) -> Iterator[dict[str, str]]:
        assert process.stdin and process.stdout
        progress.start()
        process.stdin.write(line)
        process.stdin.flush()
        for _ in range(count):
            said = process.stdout.readline()
            progress.last = time.monotonic()
            if not said.endswith("\n"):
                code = process.wait()
                slow = code == -signal.SIGPROF
                ended = f"took more than {self._limits.seconds:g} s of processor time" if slow else f"ended its process ({code})"
                yield {"beyond": progress.ended_by or ended}
                return
            answer = json.loads(said)
            yield answer
            if "beyond" in answer:
                return

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            arguments = [json.dumps(asdict(self._limits)), json.dumps([path for path in sys.path if path])]
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **ONE_THREAD},
                encoding="ascii",
            )
            assert self._process.stdout and self._process.stderr
            if self._process.stdout.readline() != "{}\n":
                said = self._process.stderr.read().strip().rpartition("\n")[2]
                self._end(self._process)
                raise EnvironmentProblem(f"the process that renders chat templates did not start ({said}); mend the Python environment")
        return self._process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            # Closing writes what was not written yet.
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        self._process = None


class _Progress(threading.Thread):
    """Looks at the process while it works and kills it where the system's own limits do not reach."""

    def __init__(self, process: subprocess.Popen[str], limits: TemplateLimits) -> None:
        super().__init__(daemon=True)
        self.last = time.monotonic()
        self.over = threading.Event()
        self.ended_by = ""
        self._process, self._limits = process, limits

    def run(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            if time.monotonic() - self.last > self._limits.wall_seconds:
                self.ended_by = f"took more than {self._limits.wall_seconds:g} s"
            elif self._memory() > 2 * self._limits.bytes:
                self.ended_by = f"took more than {self._limits.bytes / 2**20:,.0f} MiB of memory"
            if self.ended_by:
                self._process.kill()
                return

    def _memory(self) -> int:
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0


@cache
def template_process(limits: TemplateLimits, parent: int) -> TemplateProcess:
    """The process of these limits that the process `parent` owns: one that was forked has its own, since pipes cannot be shared."""
    return TemplateProcess(limits)
