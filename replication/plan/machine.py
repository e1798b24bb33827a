"""The machine under us: its GPUs and its memory. Asked of the system, without torch."""

from __future__ import annotations

import shutil
import subprocess
from typing import NamedTuple

import psutil

SECONDS = 20


class Card(NamedTuple):
    """One GPU: its name and its memory, GB."""

    name: str
    memory_gb: float


def cards() -> list[Card]:
    """The GPUs that nvidia-smi lists; none where it is missing. Raises OSError or subprocess.SubprocessError when it fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
    fields = [line.rpartition(",") for line in text.splitlines() if line.strip()]
    # Mebibytes, whatever the tool calls them.
    return [Card(name.strip(), float(size) * 2**20 / 1e9) for name, _, size in fields if size.strip().isdigit()]


def host_memory_gb() -> float:
    """All memory of this machine, GB."""
    return float(psutil.virtual_memory().total) / 1e9
