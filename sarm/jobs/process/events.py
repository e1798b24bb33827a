"""What a job process tells: JSON lines to its launcher, text to the job's log."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from sarm.job import JobRequest

PROGRESS_SECONDS = 0.2


class Events:
    """JSON lines on a stream. `gone` is set when nobody reads them any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.gone = threading.Event()

    def emit(self, event: str, request: JobRequest, **facts: Any) -> None:
        """Tell one event of one job."""
        line = json.dumps({"event": event, "key": request.key, "kind": request.kind, "label": request.label, **facts})
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self.gone.set()

    def progress_of(self, request: JobRequest) -> Callable[[int, int, str, str], None]:
        """A `progress(done, total, unit, note)` that tells at most five times a second, and always the end."""
        last = 0.0

        def progress(done: int, total: int, unit: str, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PROGRESS_SECONDS or done == total:
                last = now
                self.emit("progress", request, done=done, total=total, unit=unit, note=note)

        return progress


class _Tee(io.TextIOBase):
    """Text to several streams, one of which may be closed by now."""

    def __init__(self, streams: Sequence[TextIO]) -> None:
        self._streams = streams

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        for stream in self._streams:
            # A library may keep the stream of an earlier job, whose log is closed.
            if not stream.closed:
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            if not stream.closed:
                stream.flush()


@contextmanager
def captured(logs: Sequence[Path], stderr: TextIO) -> Iterator[Callable[[str], None]]:
    """Append what Python prints and logs meanwhile to the log files and to `stderr`; gives `log(line)` for the files alone."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("a", encoding="utf-8", errors="replace", buffering=1)) for path in logs]
        tee = _Tee([*files, stderr])
        handler = logging.StreamHandler(_Tee(files))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        stack.enter_context(redirect_stdout(tee))  # type: ignore[type-var]
        stack.enter_context(redirect_stderr(tee))  # type: ignore[type-var]

        def log(line: str) -> None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            for file in files:
                file.write(f"{now} {line}\n")

        yield log
