"""`python -m sarm.jobs REQUESTS.json --store DIR`: the process that computes.

Events go to stdout as JSON lines; everything that libraries print goes to the job's log and to stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

from pydantic import ValidationError

from sarm.job import Interrupted, JobError, JobRequest, UsageProblem
from sarm.jobs.process.events import Events
from sarm.jobs.process.lifecycle import JobProcess
from sarm.jobs.process.ranks import Follower, Leader, rank_and_size
from sarm.jobs.process.registry import Registry, load
from sarm.store.artifacts import ArtifactStore
from sarm.store.tracebacks import keep_traceback
from sarm.store.whole_files import write_whole

STOP_FILE_SECONDS = 0.5


class StopRequest:
    """True once SIGTERM or SIGINT came, a stop file exists, or nobody reads the events any more. A second SIGINT kills.

    `stop_file` may be several paths, separated as in PATH: a launcher adds its own to the user's.
    """

    def __init__(self, stop_file: str, events: Events) -> None:
        self._files = [Path(name) for name in stop_file.split(os.pathsep) if name]
        self._events = events
        self._stopped = False
        self._interrupted = False
        self._looked = 0.0

    def install(self) -> None:
        """Take over SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._stopped = True

    def __call__(self) -> bool:
        # Asked once a step: a stop file on a network file system is looked for twice a second at most.
        if not self._stopped and self._files and time.monotonic() - self._looked > STOP_FILE_SECONDS:
            self._looked = time.monotonic()
            self._stopped = any(file.exists() for file in self._files)
        return self._stopped or self._events.gone.is_set()


class StateFile:
    """Tells a batch script what became of its requests: `{"state": ..., "code": ...}`, by rename; no file, nothing told.

    `running`; at the end `done`, `failed`, `checkpointed` (stopped, and work of this run is kept) or `interrupted` (stopped,
    nothing new kept). A launcher of several processes hides their exit codes, and a requeue must only follow kept work.
    """

    def __init__(self, path: str, store: ArtifactStore) -> None:
        # One process tells it, where there are several.
        self._path = Path(path) if path and os.environ.get("RANK", "0") == "0" else None
        self._store = store
        self._requests: list[JobRequest] = []
        self._there: set[str] = set()

    def start(self, requests: list[JobRequest]) -> None:
        """The requests are known and the work begins. Raises OSError where the file cannot be written."""
        self._requests = requests
        self._there = {request.key for request in requests if self._store.path(request).exists()}
        self._write("running", 0)

    def end(self, code: int) -> None:
        """The work is over with this exit code. Raises OSError where the file cannot be written."""
        if code == Interrupted.exit_code:
            self._write("checkpointed" if self._kept_something() else "interrupted", code)
        else:
            self._write("failed" if code else "done", code)

    def _kept_something(self) -> bool:
        if self._path is None or not self._path.exists():
            return False
        # Two times given by the same file system: hosts' clocks differ.
        began = self._path.stat().st_mtime
        works = [self._store.staging.look(request.kind, request.key) for request in self._requests]
        finished = any(self._store.path(request).exists() for request in self._requests if request.key not in self._there)
        return finished or any(work is not None and work.checkpoint_time >= began for work in works)

    def _write(self, state: str, code: int) -> None:
        if self._path is not None:
            write_whole(self._path, json.dumps({"state": state, "code": code}) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requests of a file; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sarm.jobs", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("requests", type=Path, help="JSON file: one JobRequest or a list of them")
    parser.add_argument("--store", type=Path, required=True, help="folder of the artifacts")
    parser.add_argument("--command", default="replicate table1", help="what builds a missing input, for messages")
    parser.add_argument("--keep-going", action="store_true", help="go on with jobs that do not need a failed one")
    parser.add_argument("--together", type=Path, help="folder shared by several processes at one list: each takes what is ready and free")
    parser.add_argument("--registry", default="sarm.jobs.process.registry:REGISTRY", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    stderr = cast(TextIO, _Lenient())
    store = ArtifactStore(options.store)
    state = StateFile(os.environ.get("SARM_STATE_FILE", ""), store)
    leaders: list[Leader] = []
    code = _guarded(options, store, state, stderr, leaders)
    try:
        state.end(code)
    except OSError as error:
        # The disk may be full, which the exit code tells already.
        stderr.write(f"the state file was not written: {error}\n")
    for leader in leaders:
        # Last: when one process of a group ends, its launcher ends the others.
        leader.dismiss()
    return code


def _guarded(options: argparse.Namespace, store: ArtifactStore, state: StateFile, stderr: TextIO, leaders: list[Leader]) -> int:
    try:
        return _run(options, store, state, stderr, leaders)
    except JobError as problem:
        stderr.write(f"{problem}\n")
        return problem.exit_code
    except Exception as error:
        kept = keep_traceback(store.root, f"process-{os.getpid()}-traceback.txt")
        stderr.write(f"{type(error).__name__}: {error}; traceback in {kept}\n")
        return 1


def _run(options: argparse.Namespace, store: ArtifactStore, state: StateFile, stderr: TextIO, leaders: list[Leader]) -> int:
    requests = read_requests(options.requests)
    registry = load(options.registry)
    if not isinstance(registry, Registry):
        raise UsageProblem(f"{options.registry} is no Registry")
    state.start(requests)
    events = Events(_take_stdout())
    stop = StopRequest(os.environ.get("SARM_STOP_FILE", ""), events)
    stop.install()
    rank, size = rank_and_size()
    if size > 1:
        from sarm.engine.group import board  # noqa: PLC0415 - brings torch, which a process on its own may not need

        if rank:
            return Follower(board=board(), rank=rank, registry=registry, stop_requested=stop, stderr=stderr).run()
        leaders.append(Leader(board=board(), size=size))
    process = JobProcess(
        store=store,
        registry=registry,
        events=events,
        stop_requested=stop,
        command=options.command,
        keep_going=options.keep_going,
        tensorboard=os.environ.get("SARM_TENSORBOARD", ""),
        stderr=stderr,
        together=options.together,
        leader=leaders[0] if leaders else None,
    )
    return process.run(requests)


class _Lenient(io.TextIOBase):
    """The process's stderr, which launchers keep in the store: on a full disk it falls silent, and the exit code still tells."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str, /) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # What is left in its buffer would fail again at the end of the interpreter.
            self._stream = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        return len(text)


def read_requests(path: Path) -> list[JobRequest]:
    """The requests in a file. Raises UsageProblem when it is missing or malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [JobRequest.model_validate(entry) for entry in (content if isinstance(content, list) else [content])]
    except (OSError, ValueError, ValidationError) as error:
        raise UsageProblem(f"{path.name} is not a file of job requests: {str(error).splitlines()[0]}") from error


def _take_stdout() -> TextIO:
    # Native code writes to descriptor 1 and would garble the events: they get a descriptor of their own, and 1 becomes stderr.
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _leave(code: int) -> None:
    if rank_and_size()[1] == 1:
        sys.exit(code)
    # A group of which a process is gone would be waited for at the end of the interpreter.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
