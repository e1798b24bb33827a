"""What a comparison of two checkpoints depends on; see `sarm.config`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sarm.job import JobConfig


class WeightComparisonConfig(JobConfig):
    """Which tensors differ between two checkpoints, and whether the SAE was frozen between them. Locations: `first`, `second`."""

    kind: ClassVar[str] = "compare_weights"
    version: ClassVar[int] = 1

    first_digest: str = Field(description="SHA-256 over the files of the folder `first`, the earlier checkpoint.")
    second_digest: str = Field(description="SHA-256 over the files of the folder `second`.")
