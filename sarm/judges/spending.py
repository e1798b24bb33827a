"""What all jobs of one run have taken of a judge together, kept in one small file a job, so that a cap holds for their sum."""

from __future__ import annotations

import json
from pathlib import Path

from sarm.job import IntegrityProblem
from sarm.judges.questions import Usage
from sarm.store.whole_files import write_whole


class Spending:
    """One job's file among those of its run; jobs may be in several processes, and on several machines that share the folder.

    A job writes what it is about to take before it reads what the others have: of two that reach the cap at once both see it. What it was
    taking when its process ended therefore still stands there at the next attempt (`left`).

    Raises IntegrityProblem for a file of the run that is damaged.
    """

    def __init__(self, own: Path) -> None:
        own.parent.mkdir(parents=True, exist_ok=True)
        self._own = own
        self.left = _usage(own) if own.exists() else Usage(0, 0)

    def tell(self, taken: Usage) -> None:
        """What this job has taken, with what is under way."""
        write_whole(self._own, json.dumps(taken._asdict()) + "\n")

    def others(self) -> Usage:
        """What the other jobs of the run have taken."""
        total = Usage(0, 0)
        for path in sorted(self._own.parent.glob("*.json")):
            if path.name != self._own.name:
                total = total.plus(_usage(path))
        return total


def _usage(path: Path) -> Usage:
    try:
        return Usage(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        unread = f"{path}: what a job of this run took of its judge cannot be read"
        raise IntegrityProblem(f"{unread}, so no cap can be kept; delete the file to count it as nothing") from None
