"""The Triton kernels equal the plain sparse products; without a GPU in Triton's interpreter, which runs them in Python."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from folders import ROOT, SUPPORT

CHECK = """
import torch
from dense_sae import random_sae, tensors_of
from sarm.sae import sparse_products
from sarm.sae.kernels import active_pairs
from sarm.sae.model import standardize
from sarm.sae.step import AuxK, Workspace, loss_and_gradients

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

MOMENTS = """
import torch
from sarm.sae.kernels import small_moments as kernel
from sarm.sae.small_moments import EPSILON, update_by_slices

draw = torch.Generator().manual_seed(1)
parameter, gradient = (torch.randn(3000, generator=draw) for _ in range(2))
mean, square = torch.randn(3000, generator=draw).bfloat16(), torch.rand(3000, generator=draw).bfloat16()
settings = {"beta1": 0.9, "beta2": 0.999, "rate": 1e-2, "correction": 0.1, "seed": 7}
ours, plain = ([tensor.clone() for tensor in (parameter, gradient, mean, square)] for _ in range(2))
kernel.update(*ours, **settings, epsilon=EPSILON)
update_by_slices(*plain, **settings)
torch.testing.assert_close(ours[0], plain[0], rtol=1e-6, atol=1e-7)
assert not torch.equal(ours[0], parameter)
torch.testing.assert_close(ours[2].float(), plain[2].float(), rtol=2**-7, atol=1e-9)
# Their draws differ: each is one of the two neighbours of the exact value, and right in the mean.
exact = 0.999 * square.double() + 0.001 * gradient.double() ** 2
assert float(((ours[3].double() - exact).abs() / exact).max()) <= 2**-7
assert abs(float((ours[3].double() / exact).mean()) - 1) < 5e-4
print("compared", 4)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed; it comes with CUDA builds of torch")
@pytest.mark.parametrize(("check", "comparisons"), [(CHECK, "20"), (MOMENTS, "4")], ids=["products", "Adam with bfloat16 moments"])
def test_kernels_equal_the_plain_form_in_the_interpreter(check: str, comparisons: str) -> None:
    paths = [str(ROOT), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compared", comparisons]
