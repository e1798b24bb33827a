"""Errors of a GPU become one line with the documented exit code; every other error stays what it is."""

from __future__ import annotations

import pytest
import torch
from make_believe_jobs import CARD_IS_FULL, CUDA_ADVICE, lost_card

from sarm.jobs.process.device_errors import DeviceLost, device_problem
from sarm.jobs.process.ranks import _told


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (torch.OutOfMemoryError(CARD_IS_FULL), 7, "GPU 0 has a total capacity of 23.55 GiB of which 1.21 GiB is free."),
        (torch.cuda.OutOfMemoryError(CARD_IS_FULL), 7, "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB."),
        (MemoryError(), 7, "out of memory; lower resources.micro_batch_tokens"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), 7, "out of memory; lower"),
        (RuntimeError(f"CUDA error: out of memory\n{CUDA_ADVICE}"), 7, "out of memory; lower"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 7, "out of memory"),
        (RuntimeError(f"CUDA error: CUDA-capable device(s) is/are busy or unavailable\n{CUDA_ADVICE}"), 7, "the GPU cannot be used"),
        (RuntimeError("No CUDA GPUs are available"), 7, "see: replicate doctor"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), 7, "the GPU cannot be used"),
        (RuntimeError(f"CUDA error: an illegal memory access was encountered\n{CUDA_ADVICE}"), 1, "(CUDA error: an illegal memory access"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), 1, "the GPU failed"),
        (lost_card(), 1, "the GPU failed (CUDA error: unspecified launch failure)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_error_of_the_device_is_one_line_with_its_code(error: Exception, code: int, told: str) -> None:
    problem = device_problem(error)
    assert problem is not None and problem.exit_code == code
    assert told in str(problem) and "\n" not in str(problem) and "PYTORCH_ALLOC_CONF" not in str(problem)
    assert isinstance(problem, DeviceLost) == (code == 1)
    # The same in a process that is not the first.
    seen = _told(error)
    assert seen["message"].startswith(str(problem)) and (seen["code"], seen["lost"]) == (code, code == 1)


@pytest.mark.parametrize("error", [ValueError("a size does not fit"), RuntimeError("shapes cannot be multiplied")], ids=str)
def test_another_error_stays_what_it_is(error: Exception) -> None:
    assert device_problem(error) is None
    assert _told(error) == {"message": f"{type(error).__name__}: {error}", "code": 1, "lost": False}
