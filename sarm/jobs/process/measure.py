"""What a job costs while it runs, and what it cost before it was stopped: seconds and bytes at the peak."""

from __future__ import annotations

import contextlib
import json
import platform
import resource
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from sarm.store.manifest import RunFacts
from sarm.store.whole_files import write_whole

# What a killed process does not get to note at most.
NOTED_SECONDS = 15.0


class Spent:
    """What the runs of a job took until now. It is kept beside the checkpoint, noted every 15 seconds and at the end: a job that was
    stopped or killed and goes on counts all its runs, also one that began again for want of a checkpoint.

    `files` are those of the jobs that share a pass, each of which bears an equal part of its seconds.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        self._all: float | None = None
        self._files = {path: _noted(path) for path in files}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="spent", daemon=True)
        self._thread.start()

    def of(self, path: Path) -> tuple[datetime, float]:
        """When the first run of a job began, UTC, and the seconds of all its runs."""
        began, before = self._files[path]
        now = time.monotonic() - self._clock if self._all is None else self._all
        return began or self._began, before + now / len(self._files)

    def end(self) -> None:
        """Count no further, and note it a last time."""
        self._ended.set()
        self._thread.join()
        self._all = time.monotonic() - self._clock
        self._note()

    def _go_on(self) -> None:
        while not self._ended.wait(NOTED_SECONDS):
            self._note()

    def _note(self) -> None:
        for path in self._files:
            began, seconds = self.of(path)
            # What it cost is not worth the work itself: on a full disk, or after another process took it over, it is not noted.
            with contextlib.suppress(OSError):
                if path.parent.is_dir():
                    write_whole(path, json.dumps({"began": began.isoformat(), "seconds": round(seconds, 3)}) + "\n")


def _noted(path: Path) -> tuple[datetime | None, float]:
    """What an earlier run left; nothing where there was none, or where its last words cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return datetime.fromisoformat(found["began"]), max(float(found["seconds"]), 0.0)
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0.0


class Meter:
    """Starts when built; `facts()` tells what was measured since."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        # One process does several jobs: the kernel's peak is set back so that each job gets its own. Where that is not
        # permitted the peak of the whole process is an upper bound.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        cuda = _cuda()
        if cuda is not None:
            for device in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(device)

    def facts(self) -> RunFacts:
        """Times, peak resident memory of this process, peak memory of the GPU that needed most, names of those that it used."""
        unit = 1 if platform.system() == "Darwin" else 1024
        cuda = _cuda()
        peaks = [(cuda.get_device_name(i), cuda.max_memory_allocated(i)) for i in range(cuda.device_count())] if cuda is not None else []
        return RunFacts(
            started=self._started,
            ended=datetime.now(UTC),
            seconds=time.monotonic() - self._clock,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
            peak_gpu_memory_bytes=max((peak for _, peak in peaks), default=0),
            gpus=tuple(name for name, peak in peaks if peak),
        )


def _cuda() -> ModuleType | None:
    # A job that never imported torch must not pay for it here.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    cuda: ModuleType = torch.cuda
    return cuda
