"""`replicate` in a fork of this process, and its job processes in forks of that: what is imported once serves a thousand commands."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

MEMORY_BYTES = 6 * 2**30
POLL_SECONDS = 0.01


class Ended(NamedTuple):
    """How a command ended: its exit code (None where it was killed for its time), the seconds, what it said."""

    code: int | None
    seconds: float
    out: str
    err: str


def in_fork(work: Callable[[], int], folder: Path, *, seconds: float) -> Ended:
    """Run `work` in a fork whose output goes to files in `folder`; with all its children it is killed after so long."""
    began = time.monotonic()
    files = [folder / "out.txt", folder / "err.txt"]
    pid = os.fork()
    if not pid:
        _be_child(work, files)
    code: int | None = None
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - began > seconds:
            # Its session is its own: what it started dies with it.
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(POLL_SECONDS)
    out, err = (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in files)
    return Ended(code, time.monotonic() - began, out, err)


def _be_child(work: Callable[[], int], files: Sequence[Path]) -> None:
    code = 1
    try:
        os.setsid()
        for number, file in enumerate(files, start=1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8", closefd=False), os.fdopen(2, "w", encoding="utf-8", closefd=False)
        resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY_BYTES,) * 2)
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _mapped() -> int:
    """Bytes of address space that this process has already."""
    if not sys.platform.startswith("linux"):
        return 2**40
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def command(arguments: Sequence[str], *, environment: dict[str, str]) -> Callable[[], int]:
    """`replicate` with these arguments, as `in_fork` runs it."""

    def work() -> int:
        from replication.cli import app
        from replication.cli.options import endpoint
        from replication.launch import local

        os.environ.update(environment)
        local.subprocess = SimpleNamespace(Popen=ForkedJob, PIPE=subprocess.PIPE)  # type: ignore[assignment]
        # One wait of half a second in place of eight that grow: the ways through the code are the same.
        endpoint.RETRIES = 1
        sys.argv = ["replicate", *arguments]
        app.main()
        return 0

    return work


class ForkedJob:
    """What the launcher needs of `subprocess.Popen` for `python -m sarm.jobs`, as a fork in the same session."""

    def __init__(self, command: Sequence[str], *, stderr: IO[bytes], env: dict[str, str], **unused: Any) -> None:
        assert tuple(command[1:3]) == ("-m", "sarm.jobs"), command
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            self._work(command[3:], writing, stderr.fileno(), env)
        os.close(writing)
        self.stdout = os.fdopen(reading, encoding="utf-8")

    @staticmethod
    def _work(arguments: Sequence[str], events: int, log: int, env: dict[str, str]) -> None:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(events, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8", closefd=False), os.fdopen(2, "w", encoding="utf-8", closefd=False)
            os.environ.update(env)
            from sarm.jobs.__main__ import main

            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self) -> int:
        """The exit code, when it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)
