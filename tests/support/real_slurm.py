"""Jobs on the real Slurm of the tests: what its nodes have, how a chain is handed over, and how one waits for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from make_believe_jobs import CountConfig, SumConfig

from replication.launch.local import LocalLauncher
from replication.launch.slurm.calls import Slurm
from replication.launch.slurm.status import JobStatus, job_statuses
from replication.launch.slurm.submission import SlurmLauncher
from replication.settings.clusters import Cluster
from sarm.job import Job, Resources, topological_order
from sarm.store.artifacts import ArtifactStore

COMMAND = "replicate table1 --launcher slurm"
PATIENCE_SECONDS = 240
NODES = Cluster(
    name="pretended", summary="two nodes of this machine", gpu_flag="gres", gpu_name="a100", gpu_memory_gb=80, gpus_per_node=4,
    cpus_per_gpu=1, cpus_without_gpu=1, memory_per_node_gb=64, max_hours=1,
)  # fmt: skip


def count(seed: int, **config: Any) -> Job:
    return Job(CountConfig(seed=seed, **config), resources=Resources(memory_gb=1), label=f"count {seed}")


def total(*inputs: Job) -> Job:
    named = {f"input {number}": job for number, job in enumerate(inputs)}
    return Job(SumConfig(), inputs=named, resources=Resources(memory_gb=1), label=f"sum of {inputs[0].label}")


def launch(store: ArtifactStore, *ends: Job, nodes: Cluster = NODES) -> list[str]:
    """Submit what the ends need; the note of each job."""
    events: list[dict[str, Any]] = []
    launcher = SlurmLauncher(
        command=COMMAND, cluster=nodes, here=LocalLauncher(command=COMMAND), report=lambda text: None,
        registry="make_believe_jobs:MAKE_BELIEVE",
    )  # fmt: skip
    plan = [job for job in topological_order(ends) if not store.has(job)]
    assert launcher.launch(plan, store, events.append) == 0
    return [event["note"] for event in events]


def states(store: ArtifactStore) -> dict[str, JobStatus]:
    return {one.label: one for one in job_statuses(store, Slurm())}


def wait(store: ArtifactStore, until: Callable[[dict[str, JobStatus]], bool]) -> dict[str, JobStatus]:
    """Poll until a condition holds; fails with how things stand and with the logs."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        seen = states(store)
        if until(seen):
            return seen
        time.sleep(1)
    told = "\n".join(path.read_text() for path in sorted((store.root / ".slurm" / "logs").glob("*")))
    raise AssertionError(f"{states(store)}\n{told}")


def ended(seen: dict[str, JobStatus]) -> bool:
    return all(one.state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING") for one in seen.values())
