"""Runs a plan on this machine: one child process for all jobs, so that heavy imports are paid once, or a few side by side."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import sarm
from replication.launch.interface import Watch
from replication.launch.torchrun import Segment, Talk, fallen, segments, torchrun
from sarm.job import EnvironmentProblem, Interrupted, Job, JobRequest
from sarm.store.artifacts import ArtifactStore

TAIL_LINES = 20
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = (Interrupted.exit_code, 130)
# Source: interface.md section 2, as in a job process.
PRECEDENCE = (2, 7, 6, 1, 5)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class LocalLauncher:
    """Children `python -m sarm.jobs` on this machine: one, or `workers` of them, each of which takes whatever is ready.

    Jobs that ask for several processes get a torchrun of their own, between those before and after them in the plan.
    Side by side they share the cores: where jobs are many and small, two with one thread each do more than one with two.
    A job has its share of them also where it is the only one left: its rounding must not follow from how much was there before.
    `command` is what the user types to resume. With `keep_going` jobs that do not need a failed one still run. A failure is told
    to `report` as text (job, log, last lines, command), to the terminal's stderr unless given.
    """

    command: str
    keep_going: bool = False
    report: Callable[[str], None] = _to_stderr
    registry: str = "sarm.jobs.process.registry:REGISTRY"
    workers: int = 1

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        """See Launcher. SIGINT, SIGTERM and SIGHUP are forwarded, and the child's checkpoint is waited for.

        Raises EnvironmentProblem when the store cannot be written.
        """
        if not plan:
            return 0
        log = self._new_log(store)
        troubles: list[dict[str, Any]] = []
        lost: set[str] = set()
        killed: list[str] = []

        def follow(event: dict[str, Any]) -> None:
            if event["event"] == "killed":
                return killed.append(event["process"])
            if event["event"] in ("failed", "interrupted", "skipped"):
                lost.add(event["key"])
                troubles.extend([event] if event["event"] != "skipped" else [])
            watch(event)

        codes: list[int] = []
        for segment in segments(plan):
            codes.append(self._segment(segment, store, log, follow, lost))
            if _exit_code(codes[-1]) in STOPPED or (codes[-1] and not self.keep_going):
                break
        code = next((one for exit_code in (*STOPPED, *PRECEDENCE) for one in codes if _exit_code(one) == exit_code), max(codes))
        if code:
            self.report(self._account(code, troubles, log, *killed[-1:]))
        return _exit_code(code)

    def _segment(self, segment: Segment, store: ArtifactStore, log: Path, follow: Watch, lost: set[str]) -> int:
        jobs = [job for job in segment.jobs if not _skipped(job, lost, follow)]
        if not jobs:
            return 0
        with tempfile.TemporaryDirectory(prefix="replicate-") as folder:
            requests = Path(folder) / "requests.json"
            requests.write_text(json.dumps([JobRequest.of(job).model_dump(mode="json") for job in jobs]), encoding="utf-8")
            if segment.processes > 1:
                return self._run_group(requests, store, log, follow, processes=segment.processes)
            workers = min(self.workers, len(jobs))
            # Processes that share a plan take what is there for done; one of them moving it would race with another.
            for job in jobs if workers > 1 else ():
                store.present_or_set_aside(job)
            return self._run(requests, store, log, follow, workers=workers)

    def _new_log(self, store: ArtifactStore) -> Path:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        log = store.root / ".logs" / f"process-{now}-{os.getpid()}.txt"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        except OSError as error:
            raise EnvironmentProblem(f"the store {store.root} cannot be written ({error.strerror}); choose another with --store") from error
        return log

    def _run(self, requests: Path, store: ArtifactStore, log: Path, follow: Watch, *, workers: int) -> int:
        command = [sys.executable, "-m", "sarm.jobs", *self._arguments(requests, store)]
        command += ["--together", str(requests.parent)] if workers > 1 else []
        environment = _environment(self.workers)
        with log.open("ab") as stderr:
            # Sessions of their own: the terminal's Ctrl-C must reach each child once, through us.
            children = [
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True, encoding="utf-8", start_new_session=True
                )
                for _ in range(workers)
            ]

        def forward(number: int) -> None:
            # A terminal that closes must not kill a child before its checkpoint.
            for child in children:
                child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

        with _handling(forward):
            try:
                return _first_failure(_followed(children, follow, keep_going=self.keep_going))
            finally:
                for child in children:
                    _stop(child)

    def _run_group(self, requests: Path, store: ArtifactStore, log: Path, follow: Watch, *, processes: int) -> int:
        talk = Talk(requests.parent)
        environment = {**_environment(processes), **talk.environment()}
        with log.open("ab") as stderr:
            begins = stderr.tell()
            child = subprocess.Popen(
                [*torchrun(processes), *self._arguments(requests, store)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        with _handling(talk.asker(child)):
            try:
                _follow_events(child, follow)
                torchruns = child.wait()
            finally:
                _stop(child)
        code = talk.code(torchruns)
        # A process that is killed tells nothing itself: the first one notices that it is gone, or is gone itself.
        gone = fallen(_since(log, begins)) if torchruns and code not in STOPPED else None
        if gone is None:
            return code
        follow({"event": "killed", "process": f"process {gone.rank} of {processes}"})
        return -gone.signal

    def _arguments(self, requests: Path, store: ArtifactStore) -> list[str]:
        given = [str(requests), "--store", str(store.root), "--command", self.command, "--registry", self.registry]
        return given + (["--keep-going"] if self.keep_going else [])

    def _account(self, code: int, troubles: Sequence[dict[str, Any]], process_log: Path, process: str = "the job process") -> str:
        lines: list[str] = []
        told: set[str] = set()
        for trouble in troubles:
            verb = "stopped" if trouble["event"] == "interrupted" else "failed"
            lines += [f"{trouble['label'] or trouble['kind']} ({trouble['kind']}/{trouble['key'][:12]}) {verb}: {trouble['message']}"]
            # Jobs done in one pass fail together and have the same log.
            if trouble["event"] == "failed" and trouble["message"] not in told:
                lines += _tail(Path(trouble["log"]))
            told.add(trouble["message"])
        # One of several that was killed says nothing itself, while the others tell that they were stopped.
        if not troubles or code < 0:
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            hint = "; the system may have run out of memory" if code == -signal.SIGKILL else ""
            lines += [f"{process} {cause}{hint}", *_tail(process_log)]
        return "\n".join([*lines, f"resume with: {self.command}"])


def _skipped(job: Job, lost: set[str], follow: Watch) -> bool:
    """Whether an input failed in an earlier child; told as an event."""
    broken = next((name for name, needed in job.inputs.items() if needed.key in lost), "")
    if broken:
        reason = f"its input {broken!r} failed"
        follow({"event": "skipped", "key": job.key, "kind": job.kind, "label": job.label, "reason": reason})
    return bool(broken)


def _exit_code(code: int) -> int:
    if code == -signal.SIGINT:
        return 130
    if code == -signal.SIGTERM:
        return Interrupted.exit_code
    if code == -signal.SIGKILL:
        return EnvironmentProblem.exit_code
    return 1 if code < 0 else code


def _first_failure(codes: Sequence[int]) -> int:
    # Those that were stopped because another failed, perhaps before they could listen, are not the cause.
    stopped = (0, Interrupted.exit_code, -signal.SIGTERM)
    return next((code for code in codes if code not in stopped), max(codes, key=abs))


def _followed(children: Sequence[subprocess.Popen[str]], follow: Watch, *, keep_going: bool) -> list[int]:
    """The children's exit codes, after their events were told one at a time; when one fails the others are stopped."""
    if len(children) == 1:
        _follow_events(children[0], follow)
        return [children[0].wait()]
    events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read(child: subprocess.Popen[str]) -> None:
        _follow_events(child, events.put)
        if child.wait() and not keep_going:
            for other in children:
                other.terminate()
        events.put(None)

    readers = [threading.Thread(target=read, args=(child,), daemon=True) for child in children]
    for reader in readers:
        reader.start()
    # The watch is called here, in the thread that a terminal's display belongs to.
    for _ in children:
        while (event := events.get()) is not None:
            follow(event)
    return [child.wait() for child in children]


def _follow_events(child: subprocess.Popen[str], follow: Watch) -> None:
    if child.stdout is None:
        return
    for line in child.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            # The half line of a child that was killed while writing.
            continue
        follow(event)


def _stop(child: subprocess.Popen[str]) -> None:
    if child.stdout is not None:
        # Nobody listens any more: the child notices at its next event and writes a checkpoint.
        child.stdout.close()
    if child.poll() is None:
        child.terminate()
        child.wait()


def _environment(workers: int) -> dict[str, str]:
    # The child must run the same code as we do, also from a checkout that is not installed.
    source = str(Path(sarm.__file__).resolve().parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    # Threads that spin while they wait make small tensors tens of times slower as soon as anything else wants a core.
    quiet = {"OMP_WAIT_POLICY": "PASSIVE"}
    if workers > 1:
        quiet["OMP_NUM_THREADS"] = str(max(1, cores() // workers))
    return {**quiet, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _handling(act: Callable[[int], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        act(number)

    # Python permits handlers in the main thread only; an ignored SIGHUP (nohup) stays ignored.
    in_main = threading.current_thread() is threading.main_thread()
    taken = [number for number in FORWARDED if in_main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _since(log: Path, place: int) -> str:
    """What was written to a log after its first `place` bytes; empty where it cannot be read."""
    try:
        return log.read_bytes()[place:].decode("utf-8", errors="replace")
    except OSError:
        return ""


def _tail(log: Path) -> list[str]:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [f"log: {log} ({error.strerror})"]
    return [f"log: {log}", *(f"  | {line}" for line in lines[-TAIL_LINES:])]
