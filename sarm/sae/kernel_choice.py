"""Whether Triton's kernels compute, or their plain forms: decided by device and precision, and by whether a first kernel can be built."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

Room = Literal["active_pairs", "adam"]


def kernels(room: Room, operand: Tensor) -> ModuleType | None:
    """The kernels of that file for the device of an operand; None where the plain form computes.

    That is on a CPU, in double precision (which is for checks), and on a GPU whose Triton is absent or builds nothing: said once.
    """
    if not lies_on_a_gpu(operand) or operand.dtype == torch.float64 or problem_of_triton(operand.device):
        return None
    return importlib.import_module(f"sarm.sae.kernels.{room}")


def lies_on_a_gpu(operand: Tensor) -> bool:
    """Whether an operand lies where a kernel can read it."""
    return operand.is_cuda


@cache
def problem_of_triton(device: torch.device) -> str:
    """Why no kernel runs on a device, empty where one does: a tiny one is built and its result looked at. Warns with the reason."""
    try:
        found = importlib.import_module("sarm.sae.kernels.active_pairs").latent_sums(
            torch.ones(3, device=device), starts=torch.tensor([0, 1, 3], dtype=torch.int32, device=device)
        )
        problem = "" if found.tolist() == [1.0, 2.0] else f"a first kernel gave {found.tolist()} for [1.0, 2.0]"
    # Whatever a missing compiler, header, driver or package raises: the plain form needs none of them.
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
    if problem:
        warnings.warn(
            f"SAE steps on {device} take the plain way, several times slower: Triton's kernels do not run here ({problem}); "
            "`replicate doctor` says what they need",
            RuntimeWarning,
            stacklevel=2,
        )
    return problem
