"""Where a job computes and in which precision: threads, device, dtype."""

from __future__ import annotations

import os

import torch

from sarm.job import EnvironmentProblem, Resources, UsageProblem

# Threads before the first job of this process that asked for a number of its own.
_BEFORE: list[int] = []


def use_threads(resources: Resources) -> None:
    """Set torch's intra-op threads; 0 takes the number that the process began with, also after a job that asked for another."""
    if resources.threads:
        if not _BEFORE:
            _BEFORE.append(torch.get_num_threads())
        torch.set_num_threads(resources.threads)
    elif _BEFORE:
        torch.set_num_threads(_BEFORE[0])
        _BEFORE.clear()


def device_of(resources: Resources) -> torch.device:
    """`cuda` when GPUs are asked for, else `cpu`. Raises EnvironmentProblem when the machine has none."""
    if not resources.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentProblem("resources.gpus > 0 but torch sees no CUDA device; set resources.gpus = 0 or run on a GPU node")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise EnvironmentProblem(f"process {local} of this machine has no GPU of its own: torch sees {count}; lower resources.gpus")
    return torch.device("cuda", local)


def named_device(device: torch.device | str) -> torch.device:
    """A device by its name. Raises UsageProblem for a name that torch does not know, EnvironmentProblem for one that is not here."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageProblem(f"device = {device!r} is no device of torch; give 'cpu', 'cuda' or 'cuda:0'") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(f"device = '{found}': torch sees {torch.cuda.device_count()} CUDA devices; give 'cpu' or another one")
    return found


def gpus_of(resources: Resources) -> tuple[str, ...]:
    """Names of all GPUs of the one process that spreads its model over them. Raises EnvironmentProblem for fewer than asked for."""
    device_of(resources)
    count = torch.cuda.device_count()
    if count < resources.gpus:
        raise EnvironmentProblem(f"resources.gpus = {resources.gpus}, but torch sees {count}; lower it or run where there are so many")
    return tuple(f"cuda:{number}" for number in range(resources.gpus))


def torch_dtype(name: str) -> torch.dtype:
    """`float32`, `bfloat16` or `float16` as torch knows it."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
