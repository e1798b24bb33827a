"""A store of one's own for each test of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from sarm.store.artifacts import ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")
