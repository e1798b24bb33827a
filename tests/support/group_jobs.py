"""The real kinds of work, and one that takes a folder of a test as its output, so that tests can give a job its inputs."""

from __future__ import annotations

import shutil
from typing import ClassVar

from sarm.job import JobConfig, JobContext
from sarm.jobs.process.registry import FUSED, JOBS, Registry


class GivenConfig(JobConfig):
    kind: ClassVar[str] = "given"
    version: ClassVar[int] = 1

    name: str


def given(config: GivenConfig, context: JobContext) -> None:
    """Copy the folder."""
    shutil.copytree(context.locations["source"], context.output, dirs_exist_ok=True)


WITH_GIVEN = Registry(jobs={**JOBS, "given": (GivenConfig, "group_jobs:given")}, fused=FUSED)
