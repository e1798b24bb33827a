"""What this machine has: Python, packages, cores, memory, disk, GPU, Slurm. Nothing is imported and nothing is asked of the network."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import Field

from replication.report.cells import Frozen

PACKAGES = ("torch", "transformers", "datasets", "deepspeed", "accelerate", "huggingface_hub")
NEEDED_FREE_GB = 2.0
NEEDED_MEMORY_GB = 2.0


class Finding(Frozen):
    """One thing that was looked at."""

    name: str
    found: str
    fine: bool = Field(description="Whether the miniature can run with it.")
    hint: str = ""


def examine(store: Path) -> list[Finding]:
    """All findings; `store` is where artifacts would lie."""
    found = [Finding(name="python", found=platform.python_version(), fine=True)]
    found += [_package(name) for name in PACKAGES]
    found += [Finding(name="cores", found=str(os.cpu_count() or 1), fine=True), _memory(), _disk(store), _gpu(), _slurm()]
    return found


def _package(name: str) -> Finding:
    try:
        return Finding(name=name, found=metadata.version(name), fine=True)
    except metadata.PackageNotFoundError:
        return Finding(name=name, found="not installed", fine=False, hint="pip install . -c constraints.txt")


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 1e9
    hint = "" if free >= NEEDED_MEMORY_GB else f"the miniature needs {NEEDED_MEMORY_GB:.0f} GB"
    return Finding(name="memory", found=f"{free:.1f} GB available", fine=not hint, hint=hint)


def _disk(store: Path) -> Finding:
    folder = next(parent for parent in (store, *store.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    hint = "" if free >= NEEDED_FREE_GB else "replicate store gc, or another --store"
    return Finding(name="disk", found=f"{free:.1f} GB free for the store", fine=not hint, hint=hint)


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(name="gpu", found="none", fine=True, hint="mini runs on the CPU; paper needs GPUs")
    try:
        query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name="gpu", found=f"nvidia-smi fails ({type(error).__name__})", fine=False)
    return Finding(name="gpu", found="; ".join(text.splitlines()) or "none", fine=True)


def _slurm() -> Finding:
    return Finding(name="slurm", found="sbatch found" if shutil.which("sbatch") else "no sbatch", fine=True)
