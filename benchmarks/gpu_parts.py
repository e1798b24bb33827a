"""Parts of a measurement that stand or fall alone: each row is told and kept as soon as it is there, whatever becomes of the rest."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

Row = dict[str, float | str]
GB = 1e9
PACKAGES = ("torch", "triton", "transformers", "deepspeed", "eai-sparsify", "sae-lens", "trl")


class Part(NamedTuple):
    """What is measured together, under a name; it is left out where a package that it needs is absent."""

    name: str
    measure: Callable[[], Iterable[Row]]
    needs: tuple[str, ...] = ()


class Rates(NamedTuple):
    """Measured here: FLOP a second of a large bfloat16 product, bytes a second (read and written) of a large copy."""

    product: float
    memory: float


@dataclass(frozen=True)
class Bench:
    """Where everything is measured, and what all parts measure themselves against.

    `toy` sizes run on a CPU in seconds and say nothing. `speeds` holds what parts found, by what was done, for ratios of later ones.
    """

    device: torch.device
    toy: bool
    speeds: dict[tuple[object, ...], float] = field(default_factory=dict)

    @cached_property
    def rates(self) -> Rates:
        """What the device does at best, measured once in the same call as the rest."""
        size = 256 if self.toy else 8192
        left, right = (torch.randn(size, size, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        source = torch.empty((1 if self.toy else 1024) * 2**20, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        product = 2 * size**3 / self.seconds(lambda: left @ right, 20)
        return Rates(product=product, memory=2 * len(source) / self.seconds(lambda: target.copy_(source), 20))

    @property
    def dtype(self) -> torch.dtype:
        """In what the language models are held."""
        return torch.float32 if self.toy else torch.bfloat16

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Median time of a repeat, waited for, after two that do not count."""
        times = []
        for _ in range(repeats + 2):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times[2:])

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Give back what is no longer used, and let `peak` count from now."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> Row:
        """Largest memory of the GPU since `forget`, GB; nothing on a CPU."""
        return {"memory_gb": torch.cuda.max_memory_allocated(self.device) / GB} if self.device.type == "cuda" else {}


@dataclass
class Report:
    """What came out, kept in a file from the first row on where one is named."""

    about: dict[str, Any]
    out: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def keep(self) -> None:
        """Write all of it, whole or not at all."""
        if self.out is None:
            return
        partial = self.out.with_name(self.out.name + ".partial")
        whole = {**self.about, "rows": self.rows, "failed": self.failed, "left_out": self.left_out}
        partial.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.out)


def told(row: Row) -> str:
    """A row as a line."""
    values = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items() if key != "what")
    return f"{row['what']}: {', '.join(values)}"


def measure(parts: Sequence[Part], bench: Bench, report: Report, say: Callable[[str], None]) -> bool:
    """Measure part after part; gives whether none failed. A failure is told with its place and the next part begins."""
    report.keep()
    for part in parts:
        absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
        if absent:
            reason = f"{' and '.join(absent)} not installed"
            report.left_out.append({"part": part.name, "reason": reason})
            say(f"{part.name}: left out, {reason}")
        else:
            _measure(part, report, say)
        report.keep()
        bench.forget()
    return not report.failed


def _measure(part: Part, report: Report, say: Callable[[str], None]) -> None:
    try:
        for row in part.measure():
            report.rows.append({"part": part.name, **row})
            say(told(row))
            report.keep()
    # Whatever it is, the other parts run.
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        report.failed.append({"part": part.name, "reason": reason, "place": f"{Path(place.filename).name}:{place.lineno}"})
        say(f"{part.name}: FAILED, {reason} ({Path(place.filename).name}:{place.lineno})")
        # The frames hold the part's tensors.
        traceback.clear_frames(error.__traceback__)


def about(device: torch.device, *, toy: bool) -> dict[str, Any]:
    """The machine and the versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "toy": toy, "cuda": torch.version.cuda or "none", "versions": versions}
