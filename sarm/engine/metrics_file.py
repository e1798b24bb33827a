"""The log of a training: one line of JSON a step."""

from __future__ import annotations

from collections.abc import Mapping

from sarm.job import JobContext
from sarm.store.json_lines import as_line, read_log, write_lines


class MetricsFile:
    """`metrics.jsonl` in the output: one row a step, no times, so that a resumed run writes the same bytes."""

    def __init__(self, context: JobContext, *, resume_step: int, writes: bool = True) -> None:
        self._path = context.output / "metrics.jsonl"
        # Of several processes the first one writes.
        self._writes = writes
        if not writes:
            return
        rows = read_log(self._path).rows if resume_step else []
        write_lines(self._path, [row for row in rows if row["step"] <= resume_step])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step."""
        if not self._writes:
            return
        with self._path.open("a", encoding="utf-8") as out:
            out.write(as_line({"step": step, **values}))
