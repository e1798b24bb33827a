"""Benchmarks are scripts of a folder of their own, which import each other by bare name."""

from __future__ import annotations

import pytest
from folders import ROOT


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
