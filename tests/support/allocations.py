"""How much memory some work takes on the CPU, from the record of torch's allocator: what `torch.cuda.max_memory_allocated` is on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from torch.profiler import ProfilerActivity, profile

NOTHING: Mapping[int, int] = MappingProxyType({})


class Allocated(NamedTuple):
    """Bytes beside what was there before: at the peak, and left at the end; and the blocks that are left, address -> bytes."""

    peak: int
    left: int
    blocks: Mapping[int, int]


def allocated(work: Callable[[], object], before: Mapping[int, int] = NOTHING) -> Allocated:
    """What `work` allocates, temporary tensors of its operations included; what it gives back of the blocks `before` counts too.

    Torch keeps the size of a block that it saw allocated until it sees it given back. Given back while nothing is recorded, the block's
    address keeps that size, and whatever lies there later is given back as so many bytes; so only blocks that are known here are counted.
    What another thread gives back is in no record until something else lies there: too much may be counted, never too little. Gloo's
    thread may be the last to hold a buffer: take the least of several records of such work.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    return counted(sorted(memory_events(record.profiler.kineto_results.experimental_event_tree()), key=itemgetter(0)), before)


def counted(events: Iterable[tuple[int, int, int]], before: Mapping[int, int] = NOTHING) -> Allocated:
    """What events of `memory_events`, in order, come to."""
    blocks, start = dict(before), sum(before.values())
    held = peak = start
    for _, address, size in events:
        if size > 0:
            held += size - blocks.get(address, 0)
            blocks[address] = size
        else:
            held -= blocks.pop(address, 0)
        peak = max(peak, held)
    return Allocated(peak - start, held - start, blocks)


def memory_events(nodes: Iterable[Any]) -> Iterator[tuple[int, int, int]]:
    """Nanosecond, address and bytes (below 0: given back) of what a record's tree says of the allocator."""
    for node in nodes:
        if node.name == "[memory]":
            event = node.typed[1]
            yield node.start_time_ns, event.ptr, event.alloc_size
        yield from memory_events(node.children)
