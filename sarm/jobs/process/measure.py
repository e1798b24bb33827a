"""What a job costs while it runs: seconds and bytes at the peak."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from sarm.store.manifest import RunFacts


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
