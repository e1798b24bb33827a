"""How much memory some work takes on the CPU, from the record of torch's allocator: what `torch.cuda.max_memory_allocated` is on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile


class Allocated(NamedTuple):
    """Bytes beside what was there before: at the peak, and left at the end."""

    peak: int
    left: int


def allocated(work: Callable[[], object]) -> Allocated:
    """What `work` allocates, temporary tensors inside torch's own operations included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = sorted((event.start_ns(), event.nbytes()) for event in record.profiler.kineto_results.events() if event.name() == "[memory]")
    held = peak = 0
    for _, size in events:
        held += size
        peak = max(peak, held)
    return Allocated(peak, held)
