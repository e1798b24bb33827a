"""A real job process that runs make-believe jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from folders import ROOT, SUPPORT

from sarm.job import Job, JobRequest
from sarm.store.artifacts import ArtifactStore


def start(store: ArtifactStore, jobs: Sequence[Job], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """A real job process."""
    path = folder / f"requests-{time.monotonic_ns()}.json"
    path.write_text(json.dumps([JobRequest.of(job).model_dump(mode="json") for job in jobs]))
    command = [sys.executable, "-m", "sarm.jobs", str(path), "--store", str(store.root), "--registry", "make_believe_jobs:MAKE_BELIEVE"]
    paths = os.pathsep.join([str(SUPPORT), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
