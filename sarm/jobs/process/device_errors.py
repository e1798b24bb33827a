"""What an error of the GPU means for a job: too little memory, a card that cannot be used, or one that was lost in mid-job.

Errors are known by name and text, since torch must not be imported to recognise them.
"""

from __future__ import annotations

import re

from sarm.job import EnvironmentProblem, JobError

MEMORY = re.compile(r"can't allocate memory|CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
# Said before a card has done anything: others hold it for themselves, or it does not go with the driver or with torch.
UNUSABLE = re.compile(
    r"busy or unavailable|No CUDA GPUs are available|driver version is insufficient|no kernel image is available|found no NVIDIA driver"
    r"|system not yet initialized|initialization error",
    re.IGNORECASE,
)
LOST = re.compile(r"CUDA error|CUBLAS_STATUS_|cuDNN error|HIP error", re.IGNORECASE)
# How torch goes on where it has told what there is: advice for its own allocator.
ADVICE = re.compile(r"\s*(Of the allocated memory|If reserved but unallocated|See documentation).*", re.DOTALL)
LOWER = "lower resources.micro_batch_tokens (or batch_tokens of a scoring)"


class DeviceLost(JobError):
    """The GPU failed under a job: this process can compute nothing more with it."""


def device_problem(error: BaseException) -> JobError | None:
    """The problem that an error of memory or of the GPU is, without what is kept of the work; None for every other error."""
    text = str(error).strip()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or MEMORY.search(text):
        told = ADVICE.sub("", " ".join(text.split()))
        facts = f" ({told})" if "free" in told else ""
        return EnvironmentProblem(f"out of memory{facts}; {LOWER}, or free the memory that others hold, and run it again")
    line = text.splitlines()[0] if text else type(error).__name__
    if UNUSABLE.search(text):
        hint = "free it or choose another (CUDA_VISIBLE_DEVICES); see: replicate doctor"
        return EnvironmentProblem(f"the GPU cannot be used ({line}); {hint}")
    if type(error).__name__ == "AcceleratorError" or LOST.search(text):
        return DeviceLost(f"the GPU failed ({line})")
    return None
