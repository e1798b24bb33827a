"""Predicted against measured: the cost model beside the manifests of a store, kind by kind."""

from __future__ import annotations

from pydantic import Field

from replication.frozen import Frozen
from replication.plan.cost import CPU_CORE_FLOPS, CPU_OVERHEAD_SECONDS, PEAK_FLOPS, Cost
from replication.plan.steps import Plan
from sarm.store.artifacts import ArtifactStore
from sarm.store.manifest import Manifest


class Compared(Frozen):
    """All jobs of one kind that are in the store."""

    kind: str
    jobs: int
    predicted_seconds: float = Field(description="By the cost model, for the hardware that the manifests name.")
    measured_seconds: float = Field(description="Sum over the manifests.")
    predicted_gb: float = Field(description="Of the process that needs most.")
    measured_gb: float = Field(description="Highest peak: of the GPU where one was used, else of the process.")

    @property
    def ratio(self) -> float:
        """Measured seconds for each predicted one; 0 without a prediction."""
        return self.measured_seconds / self.predicted_seconds if self.predicted_seconds else 0.0


def compared(plan: Plan, store: ArtifactStore, threads: int = 0) -> list[Compared]:
    """What a plan predicts for jobs that are done, and what they took.

    `threads` is how many a job had that says none itself (OMP_NUM_THREADS), 0 for all cores of the manifest's machine.
    """
    found: dict[str, list[tuple[Cost, Manifest]]] = {}
    for step in plan.steps:
        if step.action == "reuse":
            found.setdefault(step.job.kind, []).append((step.cost, store.manifest(step.job)))
    return [
        Compared(
            kind=kind,
            jobs=len(pairs),
            predicted_seconds=sum(_seconds(cost, manifest, threads) for cost, manifest in pairs),
            measured_seconds=sum(manifest.seconds for _, manifest in pairs),
            predicted_gb=max(cost.memory_gb for cost, _ in pairs),
            measured_gb=max(manifest.peak_gpu_memory_bytes or manifest.peak_memory_bytes for _, manifest in pairs) / 1e9,
        )
        for kind, pairs in found.items()
    ]


def _seconds(cost: Cost, manifest: Manifest, threads: int) -> float:
    """Wall seconds of a job on the hardware of its manifest; of an unknown GPU as if it were an A100."""
    overhead = CPU_OVERHEAD_SECONDS.get(manifest.kind, 1.0)
    gpus = manifest.hardware.gpus
    if gpus:
        device = next((name for name in PEAK_FLOPS if name.split()[-1] in gpus[0]), "A100")
        return cost.gpu_hours(device) * 3600 / len(gpus) + overhead
    hardware = manifest.hardware
    told = int(manifest.resources.get("threads") or 0) or hardware.threads
    cores = told or min(threads or hardware.cpus, hardware.cpus)
    return cost.flops / (CPU_CORE_FLOPS * cores) + overhead
