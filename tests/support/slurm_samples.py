"""Jobs and a cluster for the tests of the Slurm scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from make_believe_jobs import CountConfig, SumConfig

from replication.launch.slurm.chain import Bundle
from replication.launch.slurm.script import LaunchFolders
from replication.launch.slurm.submission import Chain
from replication.settings.clusters import Cluster, on_cluster
from sarm.config.score import ScoringConfig
from sarm.config.train import SAETrainingConfig
from sarm.job import Job, Resources

COMMAND = "replicate table1 --launcher slurm"
MAKE_BELIEVE = "make_believe_jobs:MAKE_BELIEVE"
SMALL = Cluster(
    name="small", summary="a test", gpu_flag="gres", gpu_memory_gb=1, gpus_per_node=2, cpus_per_gpu=2, cpus_without_gpu=1,
    memory_per_node_gb=8, max_hours=2,
)  # fmt: skip
PLACE = LaunchFolders(store="/store", python="/venv/bin", source="/source")


def count(seed: int, **resources: Any) -> Job:
    return Job(CountConfig(seed=seed), resources=Resources(hours=1, memory_gb=1, **resources), label=f"count {seed}")


def spread(**resources: Any) -> Job:
    """One process that may have several GPUs."""
    return Job(ScoringConfig(benchmark="rmbench"), resources=Resources(hours=1, memory_gb=1, **resources), label="scores of a large model")


def total(inputs: Sequence[Job], factor: int = 1) -> Job:
    named = {f"input {number}": job for number, job in enumerate(inputs)}
    return Job(SumConfig(factor=factor), inputs=named, resources=Resources(hours=1, memory_gb=1), label=f"sum {factor}")


def sae(layer: int, seed: int = 0) -> Job:
    inputs = {"backbone": count(1), "corpus": count(2)}
    config = SAETrainingConfig(layer=layer, n_latents=64, k=2, vectors=100_000, seed=seed)
    return Job(config, inputs=inputs, resources=Resources(hours=1, memory_gb=1, gpus=1), label=f"SAE {layer} {seed}")


def chain_text(jobs: Sequence[Job], cluster: Cluster, place: LaunchFolders = PLACE, registry: str = MAKE_BELIEVE) -> str:
    """The last script of a chain."""
    texts: list[str] = []

    def submit(name: str, text: str, bundle: Bundle) -> str:
        texts.append(text)
        return str(len(texts))

    Chain(cluster, COMMAND, place, registry).hand_over([on_cluster(job, cluster) for job in jobs], {}, submit)
    return texts[-1]
