"""The life of one job process: for each request look, claim, run, commit; tell events; end with a documented exit code."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TextIO

from sarm.job import EnvironmentProblem, Interrupted, JobConfig, JobContext, JobError, JobRequest, UsageProblem, unsuited
from sarm.jobs.process.device_errors import DeviceLost, device_problem
from sarm.jobs.process.events import Events, captured
from sarm.jobs.process.measure import Meter, Spent
from sarm.jobs.process.ranks import Leader, run_work
from sarm.jobs.process.registry import Registry
from sarm.jobs.process.tensorboard import mirror_metrics
from sarm.store.artifacts import ArtifactStore
from sarm.store.claim_and_commit import claim, commit, release, try_claim
from sarm.store.staging import Staging, checkpoint_time

# Source: interface.md section 2. A plain failure comes before "missing", since what is missing follows from it.
PRECEDENCE = (2, 7, 6, 1, 5)
TOGETHER_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class JobProcess:
    """Runs requests in order against a store.

    `command` is what a user types to build a missing input. With `keep_going` a failure ends only the jobs that need the failed one.
    `tensorboard` names the folder for metrics, empty for none. `together` names a folder that several processes at the same list
    share: each takes whatever is ready and not held by another. `leader` is there where this is the first of several processes of
    one group, which run data-parallel kinds together; other kinds are run by it alone.
    """

    store: ArtifactStore
    registry: Registry
    events: Events
    stop_requested: Callable[[], bool]
    command: str = "replicate table1"
    keep_going: bool = False
    tensorboard: str = ""
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    together: Path | None = None
    leader: Leader | None = None
    device_lost: Event = field(default_factory=Event, init=False)

    def run(self, requests: Sequence[JobRequest]) -> int:
        """Do what is asked and give the exit code: 0, or the one of the first failure in the order of precedence, or 75."""
        pending, codes = self._missing(requests)
        if codes:
            return worst(codes)
        if self.together is not None:
            return self._run_together(pending, Failures(self.together))
        failed: set[str] = set()
        for group in self.registry.groups(pending):
            ready = [request for request in group if not self._skipped(request, failed)]
            code, undone = self._run_group(ready)
            failed |= undone
            codes += [code] if code else []
            if code == Interrupted.exit_code:
                return code
            if code and not self._goes_on():
                break
        return worst(codes)

    def _goes_on(self) -> bool:
        """Whether this process can do anything more after a failure, and is asked to."""
        broken = self.device_lost.is_set() or (self.leader is not None and self.leader.broken)
        return self.keep_going and not broken

    def _run_together(self, pending: Sequence[JobRequest], failures: Failures) -> int:
        """Take groups whose inputs are there and that nobody holds, until none is left that this process could do."""
        groups, codes = self.registry.groups(pending), []
        wanted = {request.key for request in pending}
        while groups:
            groups = [rest for group in groups if (rest := self._left(group, failures))]
            ready = [group for group in groups if self._is_ready(group, wanted)]
            taken = next((result for group in ready if (result := self._take(group, failures)) is not None), None)
            if taken is None and groups:
                if self.stop_requested():
                    return Interrupted.exit_code
                time.sleep(TOGETHER_POLL_SECONDS)
            elif taken:
                codes.append(taken)
                if taken == Interrupted.exit_code or not self._goes_on():
                    return taken
        return worst(codes)

    def _left(self, group: Sequence[JobRequest], failures: Failures) -> list[JobRequest]:
        left = []
        for request in group:
            if request.key in failures or self.store.path(request).exists():
                continue
            broken = next((name for name, (_, key) in request.inputs.items() if key in failures), "")
            if not broken:
                left.append(request)
            elif failures.add(request.key):
                self.events.emit("skipped", request, reason=f"its input {broken!r} failed")
        return left

    def _is_ready(self, group: Sequence[JobRequest], wanted: set[str]) -> bool:
        needed = {(kind, key) for request in group for kind, key in request.inputs.values() if key in wanted}
        return all(self.store.exists(kind, key) for kind, key in needed)

    def _take(self, group: Sequence[JobRequest], failures: Failures) -> int | None:
        """Do a group that nobody holds; None where another process holds its first job, else its exit code."""
        work = self.store.staging.look(group[0].kind, group[0].key)
        if work is not None and work.running:
            return None
        if any(request.key in failures for request in group):
            return None
        return self._run_group(group, failures)[0]

    def _missing(self, requests: Sequence[JobRequest]) -> tuple[list[JobRequest], list[int]]:
        pending, codes = [], []
        for request in dict((request.key, request) for request in requests).values():
            try:
                refuse_processes(request, self.registry.config_of(request))
                present = self.store.has(request)
            except JobError as problem:
                codes.append(self._tell_failure(request, problem))
                continue
            if present:
                self.events.emit("reused", request)
            else:
                pending.append(request)
        return pending, codes

    def _skipped(self, request: JobRequest, failed: set[str]) -> bool:
        broken = [name for name, (_, key) in request.inputs.items() if key in failed]
        if broken:
            failed.add(request.key)
            self.events.emit("skipped", request, reason=f"its input {broken[0]!r} failed")
        return bool(broken)

    def _run_group(self, group: Sequence[JobRequest], failures: Failures | None = None) -> tuple[int, set[str]]:
        pending = list(group)
        while pending:
            outcomes: list[tuple[JobRequest, Staging | str]] = []
            done: set[str] = set()
            with ExitStack() as releases:
                try:
                    if self.stop_requested():
                        raise Interrupted("stopped on request between two jobs; the same command continues")
                    with self.store.reporting_full_disk():
                        self._claim(pending, outcomes, releases)
                        self._execute([staging for _, staging in outcomes if isinstance(staging, Staging)], done)
                except JobError as problem:
                    if isinstance(problem, DeviceLost):
                        self.device_lost.set()
                    done |= {request.key for request, outcome in outcomes if outcome == "present"}
                    undone = [request for request in pending if request.key not in done]
                    # Before the work is free again, so that no other process tries the same.
                    if failures is not None and not isinstance(problem, Interrupted):
                        for request in undone:
                            failures.add(request.key)
                    _note_failure([one for request, one in outcomes if isinstance(one, Staging) and request in undone], problem)
                    releases.close()
                    for request in undone:
                        self._tell_failure(request, problem)
                    return problem.exit_code, {request.key for request in undone}
            pending = [request for request, outcome in outcomes if outcome == "held" and self.together is None]
        return 0, set()

    def _claim(self, pending: Sequence[JobRequest], outcomes: list[tuple[JobRequest, Staging | str]], releases: ExitStack) -> None:
        # Only the first is waited for, while nothing else is held: two processes with different orders cannot block each other.
        # Processes that share a list wait for nothing: there is other work, and what the others finish they tell.
        for number, request in enumerate(pending):
            if number == 0 and self.together is None:
                outcome: Staging | str = claim(
                    self.store,
                    request,
                    waiting=lambda note, request=request: self.events.emit("waiting", request, note=note),  # type: ignore[misc]
                    stop_requested=self.stop_requested,
                )
            else:
                outcome = try_claim(self.store, request)
            if isinstance(outcome, Staging):
                releases.callback(release, self.store, outcome)
            elif outcome == "present" and self.together is None:
                self.events.emit("reused", request)
            outcomes.append((request, outcome))

    def _execute(self, stagings: Sequence[Staging], done: set[str]) -> None:
        if not stagings:
            return
        for staging in stagings:
            self.events.emit("start", staging.request, log=str(staging.log), together=len(stagings))
        _note_failure(stagings, None)
        spent = Spent([staging.spent for staging in stagings])
        with captured([staging.log for staging in stagings], self.stderr) as log:
            try:
                meter = Meter()
                self._call([(staging.request, self._config(staging), self._context(staging, log)) for staging in stagings])
                facts = meter.facts()
            except Exception as error:
                log(f"{type(error).__name__}: {error}")
                # What was foreseen tells all in its line; a traceback would push what the job said before out of the lines that are shown.
                for staging in () if isinstance(error, JobError) else stagings:
                    _append(staging.log, traceback.format_exc())
                raise self._as_problem(error, stagings) from error
            finally:
                spent.end()
        for staging in stagings:
            started, seconds = spent.of(staging.spent)
            manifest = commit(self.store, staging, replace(facts, started=started, seconds=seconds))
            done.add(manifest.key)
            self.events.emit("done", staging.request, seconds=manifest.seconds, peak_memory_bytes=manifest.peak_memory_bytes)
            if self.tensorboard:
                mirror_metrics(self.store.path(staging.request), Path(self.tensorboard), self.stderr)

    def _call(self, work: Sequence[tuple[JobRequest, JobConfig, JobContext]]) -> None:
        calls = [(config, context) for _, config, context in work]
        if self.leader is None or not calls[0][0].data_parallel:
            run_work(self.registry, calls)
        else:
            orders = [(request, context) for request, _, context in work]
            self.leader.together(orders, lambda: run_work(self.registry, calls))

    def _config(self, staging: Staging) -> JobConfig:
        return self.registry.config_of(staging.request)

    def _context(self, staging: Staging, log: Callable[[str], None]) -> JobContext:
        request = staging.request
        return JobContext(
            inputs={
                name: self.store.find(kind, key, label=f"input {name!r} of {request.label or request.kind}", command=self.command)
                for name, (kind, key) in request.inputs.items()
            },
            output=staging.output,
            checkpoint=staging.checkpoint,
            resources=request.resources,
            locations={name: Path(place) for name, place in request.locations.items()},
            progress=self.events.progress_of(request),
            stop_requested=self.stop_requested,
            log=log,
        )

    def _as_problem(self, error: Exception, stagings: Sequence[Staging]) -> JobError:
        if isinstance(error, JobError):
            return error
        if any(not staging.held for staging in stagings):
            return EnvironmentProblem("another process took this work over, since this one seemed dead; the same command continues")
        problem = self.store.disk_problem(error) or device_problem(error)
        if isinstance(problem, DeviceLost):
            kept = any(checkpoint_time(staging.folder) for staging in stagings)
            told = "its last checkpoint is kept" if kept else "no checkpoint was written yet"
            return DeviceLost(f"{problem}; {told}; go on with: {self.command}")
        if problem is not None:
            return problem
        lines = str(error).strip().splitlines()
        return JobError(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")

    def _tell_failure(self, request: JobRequest, problem: JobError) -> int:
        name = "interrupted" if isinstance(problem, Interrupted) else "failed"
        self.events.emit(name, request, message=str(problem), code=problem.exit_code, log=str(self.store.log(request)))
        self.stderr.write(f"{request.label or request.kind}: {problem}\n")
        return problem.exit_code


def _note_failure(stagings: Sequence[Staging], problem: JobError | None) -> None:
    """Say beside unfinished work why it failed, for `replicate status`; with None that it goes on."""
    for staging in stagings:
        # Nothing rests on it: on a disk that cannot be written the work counts as stopped.
        with contextlib.suppress(OSError):
            if problem is None or isinstance(problem, Interrupted):
                staging.failure.unlink(missing_ok=True)
            elif staging.held:
                staging.failure.write_text(f"{problem}\n", encoding="utf-8")


class Failures:
    """Keys of failed jobs, known to all processes that share a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, key: object) -> bool:
        return (self._folder / f"{key}.failed").exists()

    def add(self, key: str) -> bool:
        """Note a failure; False where it was known."""
        try:
            (self._folder / f"{key}.failed").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def refuse_processes(request: JobRequest, config: JobConfig) -> None:
    """Raises UsageProblem when a kind of work is asked to use processes, their way of sharing weights, or a host that it cannot use."""
    found = unsuited(config, request.resources)
    if found is not None:
        (field, why), value = found, getattr(request.resources, found[0])
        raise UsageProblem(f"{request.label or request.kind}: resources.{request.kind}.{field} = {value}: {why}")


def worst(codes: Sequence[int]) -> int:
    """The exit code of several failures, 0 without any."""
    return next((code for code in PRECEDENCE if code in codes), max(codes, default=0))


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        # The disk may be full or the folder taken over; the failure itself is still told.
        return
