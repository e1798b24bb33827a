"""Where jobs would run: the GPUs and the memory of a cluster's nodes, or of this machine. Asked of the system, without torch."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from replication.settings.clusters import Cluster
from sarm.job import Resources

SECONDS = 20


class Card(NamedTuple):
    """One GPU: its name and its memory, GB; how much of that is free, None where nvidia-smi does not tell; its UUID."""

    name: str
    memory_gb: float
    free_gb: float | None = None
    uuid: str = ""


class Machine(NamedTuple):
    """Where jobs would run. `gpus` is how many there are at once, None where a scheduler hands them out.

    `free_gb` is what is free on each, in the order in which a job takes them; empty where nobody can tell. `node_gpus` are those of
    one node, which one process can have.
    """

    name: str
    gpus: int | None
    gpu_memory_gb: float
    memory_gb: float
    free_gb: tuple[float, ...] = ()
    node_gpus: int = 1


def machine_of(cluster: Cluster) -> Machine:
    """The cards and nodes of a cluster."""
    return Machine(cluster.name, None, cluster.gpu_memory_gb, cluster.memory_per_node_gb, node_gpus=cluster.gpus_per_node)


def this_machine(visible: str | None = None) -> Machine:
    """The host under us, with the GPUs that are `visible` (CUDA_VISIBLE_DEVICES) to its processes, all for None.

    Where nvidia-smi fails there is no telling what would fit, and no GPU is counted.
    """
    try:
        found = seen(cards(), visible)
    except (OSError, subprocess.SubprocessError):
        found = []
    free = tuple(card.free_gb for card in found if card.free_gb is not None)
    least = min((card.memory_gb for card in found), default=0.0)
    return Machine("this machine", len(found), least, host_memory_gb(), free if len(free) == len(found) else (), len(found))


def seen(found: Sequence[Card], visible: str | None) -> list[Card]:
    """The cards that CUDA_VISIBLE_DEVICES names, in its order: numbers or beginnings of UUIDs, up to the first that names none."""
    if visible is None:
        return list(found)
    chosen: list[Card] = []
    for name in (one.strip() for one in visible.split(",")):
        matching = [card for card in found if name.startswith("GPU-") and card.uuid.startswith(name)]
        if name.isdigit() and int(name) < len(found):
            matching = [found[int(name)]]
        if len(matching) != 1:
            break
        chosen += matching
    return chosen


def room(resources: Resources, machine: Machine) -> float:
    """Memory that one process can have there, GB: of its card, or its share of the host where it has none."""
    if resources.gpus:
        return machine.gpu_memory_gb
    return machine.memory_gb / max(1, resources.processes // resources.nodes)


def cards() -> list[Card]:
    """The GPUs that nvidia-smi lists; none where it is missing. Raises OSError or subprocess.SubprocessError when it fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,memory.free,uuid", "--format=csv,noheader,nounits"]
    text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    fields = [[field.strip() for field in line.rsplit(",", 3)] for line in text.splitlines() if line.count(",") >= 3]
    return [Card(name, _gb(size), _gb(free) if free.isdigit() else None, uuid) for name, size, free, uuid in fields if size.isdigit()]


def _gb(mebibytes: str) -> float:
    # Whatever the tool calls them.
    return float(mebibytes) * 2**20 / 1e9


def host_memory_gb() -> float:
    """All memory of this machine, GB."""
    return float(psutil.virtual_memory().total) / 1e9
