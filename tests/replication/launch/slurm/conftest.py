"""A Slurm of our own for the tests that need a real one: two pretended nodes of this machine (tests/slurm_cluster/cluster.sh)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import ROOT, SUPPORT

from sarm.store.artifacts import ArtifactStore

CONTROL = ROOT / "tests" / "slurm_cluster" / "cluster.sh"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A running Slurm; skipped with the reason where it cannot be."""
    checked = subprocess.run(["bash", str(CONTROL), "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        pytest.skip(f"no Slurm of our own here: {checked.stdout.strip()}")
    # Sockets have short names only; pytest's folders are long.
    folder = Path("/tmp") / f"sarm-slurm-{os.getpid()}"
    # Four jobs at once at most: the cores are few.
    own = {"SARM_SLURM_DIR": str(folder), "SARM_SLURM_PORT": str(21000 + os.getpid() % 4000 * 3), "SARM_SLURM_CPUS": "2"}
    before = {name: os.environ.get(name) for name in (*own, "SLURM_CONF", "PYTHONPATH")}
    os.environ.update(own, SLURM_CONF=str(folder / "slurm.conf"), PYTHONPATH=str(SUPPORT))
    try:
        subprocess.run(["bash", str(CONTROL), "start"], check=True, timeout=90)
        yield
    finally:
        subprocess.run(["bash", str(CONTROL), "stop"], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


@pytest.fixture
def store(cluster: None, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")
