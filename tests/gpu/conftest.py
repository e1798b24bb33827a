"""What a test of this folder runs on: a CUDA device where it is marked `gpu`, and beside that whatever an ordinary machine has."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch


def cuda() -> torch.device:
    """The first CUDA device; skips without one."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU in the ordinary tiers, a GPU in `make test-gpu`."""
    return cuda() if request.param == "cuda" else torch.device("cpu")


@pytest.fixture
def gpu() -> torch.device:
    """For tests that say nothing on a CPU; they carry the mark `gpu`."""
    return cuda()


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Where Triton's kernels run: on a GPU, or on a CPU in Triton's interpreter, which its environment variable must ask for."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if request.param == "cuda":
        yield cuda()
        return
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("tests/sarm/sae/test_kernels.py runs this with TRITON_INTERPRET=1")
    from sarm.sae import kernel_choice

    monkeypatch.setattr(kernel_choice, "lies_on_a_gpu", lambda operand: True)
    yield torch.device("cpu")
