"""Devices, precisions and threads as a job's resources ask for them."""

from __future__ import annotations

import pytest
import torch

from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.job import EnvironmentProblem, Resources


def test_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Resources()) == torch.device("cpu")
    with pytest.raises(EnvironmentProblem, match="torch sees no CUDA device"):
        device_of(Resources(gpus=1))


def test_dtype_names_are_torchs() -> None:
    assert [torch_dtype(name) for name in ("float32", "bfloat16", "float16")] == [torch.float32, torch.bfloat16, torch.float16]


def test_threads_are_set_only_when_asked_for() -> None:
    use_threads(Resources(threads=0))
    before = torch.get_num_threads()
    use_threads(Resources(threads=0))
    assert torch.get_num_threads() == before
    use_threads(Resources(threads=1))
    assert torch.get_num_threads() == 1
    # A job of the same process that asks for none does not have those of the one before it.
    use_threads(Resources(threads=before + 1))
    assert torch.get_num_threads() == before + 1
    use_threads(Resources(threads=0))
    assert torch.get_num_threads() == before
