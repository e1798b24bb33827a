"""The log of a training: one line of JSON a step."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sarm.job import JobContext


class MetricsFile:
    """`metrics.jsonl` in the output: one row a step, no times, so that a resumed run writes the same bytes."""

    def __init__(self, context: JobContext, *, resume_step: int, writes: bool = True) -> None:
        self._path = context.output / "metrics.jsonl"
        # Of several processes the first one writes.
        self._writes = writes
        if not writes:
            return
        kept = []
        if resume_step and self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= resume_step]
        self._path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step."""
        if not self._writes:
            return
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": step, **values}) + "\n")
