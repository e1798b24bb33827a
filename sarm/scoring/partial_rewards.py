"""Rewards of the batches that are done, so that an interrupted scoring goes on after its last whole batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FILE = "rewards.partial.jsonl"


class PartialRewards:
    """One line a batch: its number, its rows, their rewards. A line that was cut off by a kill counts as not written.

    Batches are a function of the job's config and inputs, so those that follow are what they would have been.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.done: dict[int, tuple[list[int], list[float]]] = {}
        if not self._path.exists():
            return
        whole = [line for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        for line in whole:
            entry = json.loads(line)
            self.done[entry["batch"]] = (entry["rows"], entry["rewards"])
        self._path.write_text("".join(whole), encoding="utf-8")

    def add(self, batch: int, rows: Sequence[int], rewards: Sequence[float]) -> None:
        """Keep a batch's rewards; a float is written so that it reads back the same."""
        self.done[batch] = (list(rows), list(rewards))
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"batch": batch, "rows": list(rows), "rewards": list(rewards)}) + "\n")
