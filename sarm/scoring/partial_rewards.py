"""Rewards of the batches that are done, so that an interrupted scoring goes on after its last whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sarm.store.json_lines import as_line, read_log, write_lines

FILE = "rewards.partial.jsonl"


class PartialRewards:
    """One line a batch: its number, its rows, their rewards. A line that was torn by a kill or a power cut counts as not written.

    Batches are a function of the job's config and inputs, so those that follow are what they would have been.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.done: dict[int, tuple[list[int], list[float]]] = {}
        found = read_log(self._path)
        self.torn = len(found.torn)
        for entry in found.rows:
            self.done[entry["batch"]] = (entry["rows"], entry["rewards"])
        if found.torn:
            write_lines(self._path, found.rows)

    def add(self, batch: int, rows: Sequence[int], rewards: Sequence[float]) -> None:
        """Keep a batch's rewards; a float is written so that it reads back the same."""
        self.done[batch] = (list(rows), list(rewards))
        with self._path.open("a", encoding="utf-8") as out:
            out.write(as_line({"batch": batch, "rows": list(rows), "rewards": list(rewards)}))
