"""The Triton kernels equal the plain sparse products; without a GPU in Triton's interpreter, which runs them in Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECK = """
import torch
from dense_sae import random_sae, tensors_of
from sarm import sparse_products
from sarm.kernels import active_pairs
from sarm.sae import standardize
from sarm.sae_step import AuxK, Workspace, loss_and_gradients

draw = torch.Generator().manual_seed(1)
x = standardize(torch.randn(7, 300, generator=draw)).values
dead = torch.arange(40) % 3 == 0
compared = 0
for dtype in (torch.float32, torch.bfloat16):
    sae = random_sae(hidden_size=300, n_latents=40, k=11, dtype=torch.float32)
    # A latent that every row keeps, so that a program sums over more than one tile, and one that none keeps.
    with torch.no_grad():
        sae.latent_bias[4], sae.latent_bias[5] = 50.0, -50.0
    for auxk in (None, AuxK(weight=0.5, dead=dead)):
        found = []
        for kernels in (None, active_pairs):
            sparse_products._kernels = lambda operand: kernels
            found.append(loss_and_gradients(
                tensors_of(sae), x, k=11, objective="normalized_mse", auxk=auxk, product_dtype=dtype, workspace=Workspace()
            ))
        plain, ours = found
        for one, other in zip((ours.loss, *ours.gradients), (plain.loss, *plain.gradients), strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
            compared += 1
print("compared", compared)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed; it comes with CUDA builds of torch")
def test_kernels_equal_the_plain_products_in_the_interpreter() -> None:
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compared", "20"]
