"""Ways of doing the same work, timed by turns on a machine that others use too."""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

BYTES_PER_MIB = 1024**2


def parser_of(description: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """A command line with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="measured rounds")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for all ways alike")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is drawn")
    return parser


class Trial(NamedTuple):
    """One run of one way: seconds on the wall and of the processor, and by how many bytes the process grew at its peak.

    Growth is None where the kernel does not tell. Processor seconds hardly depend on what else the machine does, but with more
    than one thread they also count threads that wait in a loop.
    """

    seconds: float
    processor_seconds: float
    growth: int | None


def measure(ways: Mapping[str, Callable[[], Tensor | Trial]], *, repeats: int) -> dict[str, list[Trial]]:
    """Every way once unmeasured, then `repeats` rounds of all ways in an order that turns, so that a slow minute hits each alike.

    A way that runs in a process of its own gives the Trial that was measured there.
    """
    names = list(ways)
    trials: dict[str, list[Trial]] = {name: [] for name in names}
    for way in ways.values():
        way()
    for turn in range(repeats):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            trials[name].append(_timed(ways[name]))
    return trials


def _timed(way: Callable[[], Tensor | Trial]) -> Trial:
    before = peak_from_now()
    started, started_processor = time.perf_counter(), time.process_time()
    told = way()
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - started_processor
    if isinstance(told, Trial):
        return told
    after = status("VmHWM")
    return Trial(seconds, processor_seconds, None if before is None or after is None else max(0, after - before))


def peak_from_now() -> int | None:
    """Forget this process's largest memory so far; gives what it has now, bytes, None where that cannot be done."""
    # The kernel's own peak is set back to what is resident now; where that is not permitted there is no figure at all.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return status("VmRSS")
    return None


def status(field: str) -> int | None:
    """A size of this process by the kernel's name, bytes; None where it tells none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def report(trials: Mapping[str, list[Trial]], *, ours: str, units: int, unit: str) -> str:
    """One line a way: median `unit`s a second, peak growth, and how many times faster `ours` was, round by round."""
    width = max(len(name) for name in trials)
    rows = [f"{'way':{width}}  {unit + '/s':>9}  {'peak MiB':>8}  ours faster by (median, min - max): wall; processor time"]
    for name, runs in trials.items():
        rate = units / statistics.median(run.seconds for run in runs)
        growths = [run.growth for run in runs if run.growth is not None]
        growth = f"{max(growths) / BYTES_PER_MIB:.0f}" if growths else "-"
        wall = [run.seconds / own.seconds for run, own in zip(runs, trials[ours], strict=True)]
        processor = [run.processor_seconds / own.processor_seconds for run, own in zip(runs, trials[ours], strict=True)]
        factors = "" if name == ours else f"{_spread(wall)}; {_spread(processor)}"
        rows.append(f"{name:{width}}  {rate:>9.0f}  {growth:>8}  {factors}".rstrip())
    return "\n".join(rows)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}, {min(ratios):.2f} - {max(ratios):.2f}"


def conditions(repeats: int) -> str:
    """The machine and the versions, in one line."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, {repeats} rounds by turns after a warm-up"


def assert_agree(ours: Tensor, theirs: Tensor, *, tolerance: float, what: str) -> None:
    """Both ways computed the same up to rounding. Raises AssertionError that tells the largest difference."""
    worst = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
    if not worst <= tolerance:
        raise AssertionError(f"{what} differ by {worst:.2e} of the largest value, more than {tolerance:.0e}")
    print(f"{what} agree: largest difference {worst:.1e} of the largest value")
