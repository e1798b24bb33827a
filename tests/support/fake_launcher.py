"""A launcher that commits invented artifacts at once: for tests of what is planned, collected and rendered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from replication.launch.interface import Watch
from sarm.data.preferences import ScoredPreference
from sarm.job import Job, JobRequest
from sarm.store import claim_and_commit
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_lines import write_lines
from sarm.store.manifest import RunFacts
from sarm.store.staging import Staging

SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")


class FakeLauncher:
    """Every job succeeds, but for those of kind `failing`. `started` are the keys it was given."""

    def __init__(self, *, failing: str = "", subsets: Sequence[str] = (*SUBSETS, "Ties"), code: int = 1) -> None:
        self.started: list[str] = []
        self._failing = failing
        self._subsets = subsets
        self._code = code

    def launch(self, plan: Sequence[Job], store: ArtifactStore, watch: Watch) -> int:
        """See Launcher."""
        for job in plan:
            self.started.append(job.key)
            watch({"event": "start", "key": job.key, "kind": job.kind, "label": job.label})
            if job.kind == self._failing:
                return self._code
            commit(job, store, lambda output, job=job: self._fill(job, output))  # type: ignore[misc]
            watch({"event": "done", "key": job.key, "kind": job.kind, "label": job.label, "seconds": 0.1})
        return 0

    def _fill(self, job: Job, output: Path) -> None:
        benchmark = getattr(job.config, "benchmark", "")
        rows = {"rewardbench2": rewardbench2, "rmbench": rmbench, "evaluation": pairs}.get(benchmark)
        items = [item for item in rows() if benchmark != "rewardbench2" or item.subset in self._subsets] if rows else []
        write_lines(output / "rewards.jsonl", items)


def commit(job: Job, store: ArtifactStore, fill) -> None:
    """One artifact with what `fill(output)` writes."""
    staging = claim_and_commit.try_claim(store, JobRequest.of(job))
    assert isinstance(staging, Staging)
    fill(staging.output)
    now = datetime.now(UTC)
    claim_and_commit.commit(store, staging, RunFacts(started=now, ended=now, seconds=0.1, peak_memory_bytes=1))


def rewardbench2() -> Iterator[ScoredPreference]:
    """Three of four items right in each accuracy subset, and two Ties prompts."""
    for subset in SUBSETS:
        for number in range(4):
            chosen = 1.0 if number else -1.0
            yield ScoredPreference(id=str(number), subset=subset, chosen_rewards=(chosen,), rejected_rewards=(0.0, 0.0, -0.5))
    for number in range(2):
        yield ScoredPreference(id=f"ref:{number}", subset="Ties", chosen_rewards=(2.0,), rejected_rewards=(0.0,))
        yield ScoredPreference(id=f"tied:{number}", subset="Ties", chosen_rewards=(2.0, 1.9), rejected_rewards=(0.0,))


def rmbench() -> Iterator[ScoredPreference]:
    """Two items of each domain, every comparison won."""
    for domain in ("chat", "code", "math", "safety-refuse"):
        for number in range(2):
            yield ScoredPreference(id=f"{domain}{number}", subset=domain, chosen_rewards=(1, 1, 1), rejected_rewards=(0, 0, 0))


def pairs() -> Iterator[ScoredPreference]:
    """Two sources: one always right, one half right."""
    for number in range(4):
        yield ScoredPreference(id=str(number), source="one", chosen_rewards=(1.0,), rejected_rewards=(0.0,))
        yield ScoredPreference(id=str(number + 4), source="two", chosen_rewards=(float(number % 2),), rejected_rewards=(0.5,), truncated=1)
