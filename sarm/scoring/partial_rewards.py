"""Rewards of the batches that are done, so that an interrupted scoring goes on after its last whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sarm.store.json_lines import as_line, read_log, write_lines

FILES = "rewards.partial*.jsonl"


class PartialRewards:
    """One line a batch: its number, its rows, their rewards. A line that was torn by a kill or a power cut counts as not written.

    Batches are a function of the job's config and inputs, so those that follow are what they would have been. Each process that shares
    the batches has a file of its own; `done` is what stands in all of them, whoever wrote it and however many they were.
    """

    def __init__(self, folder: Path, *, rank: int = 0) -> None:
        self._path = folder / (FILES.replace("*", f".{rank}") if rank else FILES.replace("*", ""))
        self.done: dict[int, tuple[list[int], list[float]]] = {}
        self.torn = 0
        for path in sorted({*folder.glob(FILES), self._path}):
            found = read_log(path)
            self.torn += len(found.torn)
            for entry in found.rows:
                self.done[entry["batch"]] = (entry["rows"], entry["rewards"])
            # What another process goes on writing is that process's to mend.
            if found.torn and path == self._path:
                write_lines(path, found.rows)

    def add(self, batch: int, rows: Sequence[int], rewards: Sequence[float]) -> None:
        """Keep a batch's rewards; a float is written so that it reads back the same."""
        self.done[batch] = (list(rows), list(rewards))
        with self._path.open("a", encoding="utf-8") as out:
            out.write(as_line({"batch": batch, "rows": list(rows), "rewards": list(rewards)}))
