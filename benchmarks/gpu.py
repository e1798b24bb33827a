"""Everything that wants an accelerator, as one command of a few minutes: rates, kernels against float64, SAE steps at the paper's sizes.

python benchmarks/gpu.py          one GPU with about 40 GB
python benchmarks/gpu.py --toy    toy sizes, on a CPU: shows that the script works, its figures mean nothing
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import gpu_llama
import torch
from torch import Tensor

from sarm.config.train import SAETrainingConfig
from sarm.sae import sparse_products
from sarm.sae.model import TopKSAE, normalized_mse, standardize
from sarm.sae.update import SAEUpdate

# Adam in float32 reads and writes 28 bytes a parameter; a weight read once in bfloat16 and once more in decoding, gradients written once.
ADAM_BYTES, PRODUCT_BYTES = 28, 7
# Operands are rounded before; what differs is summed in single precision.
KERNEL_TOLERANCE = 1e-5
BYTES_PER_GIB = 1024**3


class Shape(NamedTuple):
    """Hidden size, latents, k."""

    hidden: int
    latents: int
    k: int


class Rates(NamedTuple):
    """Measured here: FLOP a second of a large bfloat16 product, bytes a second (read and written) of a large copy."""

    product: float
    memory: float


PAPER_SHAPES = (Shape(4096, 65536, 192), Shape(3072, 49152, 144))
PAPER_BATCHES = (4096, 8192)
TOY_SHAPES = (Shape(64, 1024, 8),)
TOY_BATCHES = (32, 64)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a repeat, waited for."""
    work()
    times = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured_rates(device: torch.device, *, toy: bool) -> Rates:
    """What the device does at best, in the same call as the rest."""
    size = 256 if toy else 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty((1 if toy else 1024) * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = 2 * size**3 / seconds_of(lambda: left @ right, device, 20)
    return Rates(product=product, memory=2 * len(source) / seconds_of(lambda: target.copy_(source), device, 20))


def random_sae(shape: Shape, device: torch.device) -> TopKSAE:
    """Random weights in float32, made where they are used."""
    with device:
        sae = TopKSAE(hidden_size=shape.hidden, n_latents=shape.latents, k=shape.k)
    sae.reset(torch.Generator().manual_seed(0))
    return sae


def checked_against_double(device: torch.device, *, toy: bool) -> list[dict[str, float | str]]:
    """Each sparse product on the device against float64 on the CPU, from the same rounded operands: difference over size, in norms."""
    shape, batch = (Shape(64, 512, 8), 32) if toy else (Shape(1000, 8192, 48), 1024)
    draw = torch.Generator().manual_seed(1)
    indices = torch.rand(batch, shape.latents, generator=draw).topk(shape.k, dim=-1).indices
    random = {"values": (batch, shape.k), "vectors": (batch, shape.hidden), "weights": (shape.latents, shape.hidden)}
    operands = {name: torch.randn(size, generator=draw) for name, size in random.items()}
    rows: list[dict[str, float | str]] = []
    for dtype in (torch.float32, torch.bfloat16):
        rounded = {name: tensor.to(dtype) for name, tensor in operands.items()}
        found = all_products(indices.to(device), {name: tensor.to(device) for name, tensor in rounded.items()})
        exact = all_products(indices, {name: tensor.double() for name, tensor in rounded.items()})
        row: dict[str, float | str] = {"what": f"sparse products against float64, operands in {dtype}"}
        row |= {name: float((found[name].cpu() - value).norm() / value.norm()) for name, value in exact.items()}
        worst = max(float(row[name]) for name in exact)
        if not worst <= KERNEL_TOLERANCE:
            raise AssertionError(f"a sparse product differs from float64 by {worst:.1e}: {row}")
        rows.append(row)
    return rows


def all_products(indices: Tensor, operands: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a step computes from active pairs."""
    values, vectors, weights = operands["values"], operands["vectors"], operands["weights"]
    pairs = sparse_products.pairs_of([indices], len(weights))
    wide = torch.float64 if weights.dtype == torch.float64 else torch.float32
    filled = torch.empty(weights.shape, dtype=wide, device=weights.device)
    return {
        "decode": sparse_products.decode(values, indices, weights),
        "value gradients": sparse_products.value_gradients(vectors, weights, pairs),
        "weight gradients": sparse_products.weight_gradients(values.reshape(-1), vectors, pairs, filled),
        "latent sums": sparse_products.latent_sums(values.reshape(-1), pairs, len(weights)),
    }


def ours(shape: Shape, batch: int, device: torch.device) -> Callable[[Tensor], object]:
    """The suite's step: weights and Adam in float32, products in bfloat16."""
    config = SAETrainingConfig(
        layer=1, n_latents=shape.latents, k=shape.k, vectors=10**9, batch_vectors=batch, products="bfloat16", warmup_fraction=0.0
    )
    update = SAEUpdate(config, random_sae(shape, device), steps=10**6)
    done = iter(range(10**6))
    return lambda x: update.step(x, next(done))


def dense(shape: Shape, batch: int, device: torch.device) -> Callable[[Tensor], object]:
    """Autograd through the dense step under bfloat16 autocast, with fused Adam."""
    sae = random_sae(shape, device)
    adam = torch.optim.Adam(sae.parameters(), lr=5e-4, fused=True)

    def step(x: Tensor) -> None:
        adam.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            reconstruction = sae.decode(sae.encode(x).latents)
        normalized_mse(reconstruction.float(), x).mean().backward()
        adam.step()

    return step


def floor_seconds(shape: Shape, batch: int, rates: Rates) -> float:
    """The encoder's product at the measured rate, Adam's and the products' compulsory traffic at the measured bandwidth; no overlap."""
    parameters = 2 * shape.hidden * shape.latents
    return parameters * batch / rates.product + parameters * (ADAM_BYTES + PRODUCT_BYTES) / rates.memory


def step_rows(shape: Shape, batch: int, rates: Rates, device: torch.device, *, steps: int) -> list[dict[str, float | str]]:
    """Vectors a second and peak memory of our step and of the dense one, and their ratios to the floor."""
    x = standardize(torch.randn(batch, shape.hidden, device=device)).values
    floor = floor_seconds(shape, batch, rates)
    rows: list[dict[str, float | str]] = []
    for name, make in (("ours", ours), ("dense", dense)):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        step = make(shape, batch, device)
        seconds = seconds_of(partial(step, x), device, steps)
        row: dict[str, float | str] = {"what": f"SAE step, {name}", "hidden": shape.hidden, "latents": shape.latents, "k": shape.k}
        row |= {"batch": batch, "vectors/s": batch / seconds, "times the floor": seconds / floor}
        if device.type == "cuda":
            row["peak GiB"] = torch.cuda.max_memory_allocated(device) / BYTES_PER_GIB
        rows.append(row)
        del step
    rows[1]["ours faster by"] = float(rows[0]["vectors/s"]) / float(rows[1]["vectors/s"])
    return rows


def report(toy: bool) -> list[dict[str, float | str]]:
    """All rows of the SAE's part."""
    device = torch.device("cpu" if toy else "cuda")
    rates = measured_rates(device, toy=toy)
    rows: list[dict[str, float | str]] = [
        {"what": "measured rates", "bfloat16 TFLOP/s": rates.product / 1e12, "memory GB/s": rates.memory / 1e9}
    ]
    rows += checked_against_double(device, toy=toy)
    for shape in TOY_SHAPES if toy else PAPER_SHAPES:
        for batch in TOY_BATCHES if toy else PAPER_BATCHES:
            rows += step_rows(shape, batch, rates, device, steps=3 if toy else 20)
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU; the figures mean nothing")
    toy = parser.parse_args().toy
    if not toy and not torch.cuda.is_available():
        parser.error("torch sees no GPU; --toy runs the script at toy sizes on the CPU")
    print("CPU, toy sizes: these figures mean nothing" if toy else torch.cuda.get_device_name(), f"torch {torch.__version__}", sep=", ")
    for row in (*report(toy), *gpu_llama.report(toy)):
        told = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items() if key != "what")
        print(f"{row['what']}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
