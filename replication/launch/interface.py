"""What every launcher offers: take a plan, see that it is done or under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sarm.job import Job
from sarm.store.artifacts import ArtifactStore

Watch = Callable[[dict[str, Any]], None]


class Launcher(Protocol):
    """Runs or submits the jobs of a plan."""

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        """Start jobs, inputs first, and give the exit code (interface.md section 2).

        `watch` is told each event of each job as a dict: `event` (start, progress, waiting, done, reused, skipped, failed or
        interrupted), `key`, `kind`, `label`; start adds `together`, how many jobs are done in one pass with it; progress adds
        `done`, `total`, `unit`, `note`; failed and interrupted add `message`, `code`, `log`; done adds `seconds`,
        `peak_memory_bytes`. Raises UsageProblem for a plan that it cannot run.
        """
