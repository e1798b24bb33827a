"""The SAE's part of `gpu.py`: its kernels against float64 and alone, and whole steps against the dense one, the floor and the peers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import torch
from autocast_step import autocast_step
from gpu_parts import Bench, Part, Row
from torch import Tensor

from sarm.config.train import SAETrainingConfig
from sarm.sae import kernel_choice, sparse_products
from sarm.sae.model import TopKSAE, normalized_mse, standardize
from sarm.sae.small_moments import step_settings
from sarm.sae.sparse_products import Pairs
from sarm.sae.update import SAEUpdate

# Adam in float32 reads and writes 28 bytes a parameter; a weight read once in bfloat16 and once more in decoding, gradients written once.
ADAM_BYTES, PRODUCT_BYTES = 28, 7
# Operands are rounded before; what differs is summed in single precision.
KERNEL_TOLERANCE = 1e-5
NUMBERS = step_settings({"lr": 5e-4, "betas": (0.9, 0.999), "seed": 0}, step=1, place=2)


class Shape(NamedTuple):
    """Hidden size, latents, k."""

    hidden: int
    latents: int
    k: int

    def __str__(self) -> str:
        return f"{self.hidden} / {self.latents} / {self.k}"


PAPER_SHAPES, PAPER_BATCHES = (Shape(4096, 65536, 192), Shape(3072, 49152, 144)), (4096, 8192)
TOY_SHAPES, TOY_BATCHES = (Shape(64, 1024, 8),), (32, 64)


class Operands(NamedTuple):
    """A random code and what it is multiplied with: `values` and `indices` `[rows, k]`, `vectors` `[rows, hidden]`, `weights` by latent."""

    values: Tensor
    indices: Tensor
    vectors: Tensor
    weights: Tensor

    def changed(self, change: Callable[[Tensor], Tensor]) -> Operands:
        """The same with every tensor of numbers changed."""
        return Operands(*(tensor if tensor is self.indices else change(tensor) for tensor in self))

    def to(self, device: torch.device) -> Operands:
        """The same on another device."""
        return Operands(*(tensor.to(device) for tensor in self))


def operands(shape: Shape, rows: int, device: torch.device) -> Operands:
    """Drawn where they are used, in float32."""
    draw = torch.Generator(device=device).manual_seed(1)
    random = partial(torch.randn, generator=draw, device=device)
    # Some rows at a time: sorting chances for all would hold [rows, latents] three times over.
    chances = (torch.rand(min(512, rows - at), shape.latents, generator=draw, device=device) for at in range(0, rows, 512))
    indices = torch.cat([some.topk(shape.k).indices for some in chances])
    return Operands(random(rows, shape.k), indices, random(rows, shape.hidden), random(shape.latents, shape.hidden))


def all_products(given: Operands) -> dict[str, Tensor]:
    """What a step computes from active pairs."""
    pairs = sparse_products.pairs_of([given.indices], len(given.weights))
    wide = torch.promote_types(given.weights.dtype, torch.float32)
    filled, factors = torch.empty(given.weights.shape, dtype=wide, device=given.weights.device), given.values.reshape(-1)
    return {
        "decode": sparse_products.decode(given.values, given.indices, given.weights),
        "value gradients": sparse_products.value_gradients(given.vectors, given.weights, pairs),
        "weight gradients": sparse_products.weight_gradients(factors, given.vectors, pairs, filled),
        "latent sums": sparse_products.latent_sums(factors, pairs, len(given.weights)),
    }


def rates_row(bench: Bench) -> Iterator[Row]:
    """What everything is held against."""
    rates = bench.rates
    yield {"what": "measured rates", "bfloat16 TFLOP/s": rates.product / 1e12, "memory GB/s": rates.memory / 1e9}


def checked_against_double(bench: Bench) -> Iterator[Row]:
    """Each sparse product on the device against float64 on the CPU, from the same rounded operands: difference over size, in norms."""
    shape, batch = (Shape(64, 512, 8), 32) if bench.toy else (Shape(1000, 8192, 48), 1024)
    drawn = operands(shape, batch, torch.device("cpu"))
    for dtype in (torch.float32, torch.bfloat16):
        rounded = drawn.changed(lambda tensor, dtype=dtype: tensor.to(dtype))  # type: ignore[misc]
        found, exact = all_products(rounded.to(bench.device)), all_products(rounded.changed(Tensor.double))
        row: Row = {"what": f"sparse products against float64, operands in {dtype}"}
        row |= {name: float((found[name].cpu() - value).norm() / value.norm()) for name, value in exact.items()}
        yield row
        worst = max(float(row[name]) for name in exact)
        if not worst <= KERNEL_TOLERANCE:
            raise AssertionError(f"a sparse product differs from float64 by {worst:.1e}")


def alone(given: Operands, pairs: Pairs) -> dict[str, tuple[Callable[[], object], float]]:
    """Each piece of a step, and the bytes of the weights that it cannot but read and write."""
    size, factors = given.weights.numel(), given.values.reshape(-1)
    out = torch.empty(given.weights.shape, device=given.weights.device)
    low = given.changed(Tensor.bfloat16)
    code = torch.zeros(len(low.values), len(low.weights), dtype=low.values.dtype, device=out.device).scatter(1, low.indices, low.values)
    adam = torch.optim.Adam([given.weights.clone()], lr=5e-4, fused=True)
    adam.param_groups[0]["params"][0].grad = out.zero_()
    gradients = partial(sparse_products.weight_gradients, factors, low.vectors, pairs, out)
    found: dict[str, tuple[Callable[[], object], float]] = {
        "pairs by latent": (lambda: sparse_products.pairs_of([given.indices], len(given.weights)), 0.0),
        "decode": (lambda: sparse_products.decode(low.values, low.indices, low.weights), 2.0 * size),
        "value gradients": (lambda: sparse_products.value_gradients(low.vectors, low.weights, pairs), 2.0 * size),
        "weight gradient": (gradients, 4.0 * size),
        "dense decode": (lambda: code @ low.weights, 0.0),
        "dense weight gradient": (lambda: code.T @ low.vectors, 0.0),
        "fused Adam of torch": (adam.step, 28.0 * size),
    }
    triton = kernel_choice.kernels("adam", given.weights)
    for dtype, bytes_each in ((torch.float32, 24.0), (torch.bfloat16, 16.0)):
        if triton is not None:
            moments = [torch.zeros_like(given.weights, dtype=dtype) for _ in range(2)]
            sums = {"factors": pairs.by_latent(factors), "vectors": low.vectors, "rows": pairs.rows, "starts": pairs.latent_starts}
            fused = partial(triton.update_by_pairs, given.weights.clone(), *moments, **sums, **NUMBERS)
            found[f"weight gradient and Adam, moments in {dtype}"] = (fused, bytes_each * size)
    return found


def pieces(bench: Bench, shape: Shape, batch: int) -> Iterator[Row]:
    """Time of each piece of a step at that shape, operands in bfloat16; of one matrix of the two."""
    given = operands(shape, batch, bench.device)
    pairs = sparse_products.pairs_of([given.indices], shape.latents)
    for name, (work, size) in alone(given, pairs).items():
        seconds = bench.seconds(work, 3 if bench.toy else 20)
        row: Row = {"what": f"piece: {name}", "shape": str(shape), "batch": batch, "ms": 1e3 * seconds}
        yield {**row, "share of memory rate": size / seconds / bench.rates.memory} if size else row


def launch_shapes(bench: Bench, shape: Shape, batch: int) -> Iterator[Row]:
    """Decode, weight gradient and its update at other columns a program and columns a warp; ours are fixed and chosen from such a table."""
    active_pairs, adam = (importlib.import_module(f"sarm.sae.kernels.{name}") for name in ("active_pairs", "adam"))
    given = operands(shape, batch, bench.device)
    pairs = sparse_products.pairs_of([given.indices], shape.latents)
    for columns in (256, 512, 1024, 2048):
        for warps in (2, 4, 8):
            row: Row = {"what": "launch shape", "columns": columns, "warps": warps}
            changed: dict[str, Any] = {"SUM_COLUMNS": columns, "DECODE_COLUMNS": columns, "COLUMNS_OF_A_WARP": columns // warps}
            with mock.patch.multiple(active_pairs, **changed), mock.patch.object(adam, "SUM_COLUMNS", columns):
                for name, (work, _) in alone(given, pairs).items():
                    if name.startswith(("decode", "weight gradient")):
                        row[f"{name}, ms"] = 1e3 * bench.seconds(work, 3 if bench.toy else 10)
            yield row


def random_sae(shape: Shape, device: torch.device) -> TopKSAE:
    """Random weights in float32, made where they are used."""
    with torch.device("meta"):
        sae = TopKSAE(hidden_size=shape.hidden, n_latents=shape.latents, k=shape.k)
    sae.to_empty(device=device)
    with torch.no_grad():
        sae.encoder.weight.uniform_(-(shape.hidden**-0.5), shape.hidden**-0.5, generator=torch.Generator(device=device).manual_seed(0))
        sae.decoder.weight.copy_(sae.encoder.weight.T)
        sae.pre_bias.zero_()
        sae.latent_bias.zero_()
    return sae


def ours(shape: Shape, batch: int, device: torch.device, **changes: Any) -> Callable[[Tensor], object]:
    """The suite's step: weights and Adam in float32, products in bfloat16."""
    sizes = {"n_latents": shape.latents, "k": shape.k, "vectors": 10**9, "batch_vectors": batch}
    config = SAETrainingConfig.model_validate({"layer": 1, "products": "bfloat16", "warmup_fraction": 0.0, **sizes, **changes})
    update = SAEUpdate(config, random_sae(shape, device), steps=10**6)
    done = iter(range(10**6))
    return lambda x: update.step(x, next(done))


def dense(shape: Shape, batch: int, device: torch.device) -> Callable[[Tensor], object]:
    """Autograd through the dense step under bfloat16 autocast, with fused Adam."""
    sae = random_sae(shape, device)
    return autocast_step(sae, device, lambda x: normalized_mse(sae.decode(sae.encode(x).latents).float(), x).mean())


def peer(module: str) -> Callable[[Shape, int, torch.device], Callable[[Tensor], object]]:
    """The step of a module here that needs a library which may be absent."""
    return lambda shape, batch, device: importlib.import_module(module).step(*shape, device)  # type: ignore[no-any-return]


WAYS: dict[str, tuple[Callable[[Shape, int, torch.device], Callable[[Tensor], object]], tuple[str, ...]]] = {
    "ours": (ours, ()),
    "ours, moments in bfloat16": (partial(ours, moments="bfloat16"), ()),
    "dense": (dense, ()),
    "sparsify": (peer("gpu_sparsify"), ("sparsify",)),
    "SAELens": (peer("gpu_sae_lens"), ("sae_lens",)),
}


def floor_seconds(shape: Shape, batch: int, bench: Bench) -> float:
    """The encoder's product at the measured rate, Adam's and the products' compulsory traffic at the measured bandwidth; no overlap."""
    parameters = 2 * shape.hidden * shape.latents
    return parameters * batch / bench.rates.product + parameters * (ADAM_BYTES + PRODUCT_BYTES) / bench.rates.memory


def step_row(bench: Bench, shape: Shape, batch: int, way: str) -> Iterator[Row]:
    """Vectors a second and peak memory of whole steps, and their ratios to the floor and to ours."""
    x = standardize(torch.randn(batch, shape.hidden, device=bench.device)).values
    bench.forget()
    make, _ = WAYS[way]
    # Ten steps hold one renormalisation of the decoder, as in training.
    seconds = bench.seconds(_several(make(shape, batch, bench.device), x, 2 if bench.toy else 10), 3) / (2 if bench.toy else 10)
    bench.speeds[("SAE step", shape, batch, way)] = batch / seconds
    row: Row = {"what": f"SAE step, {way}", "shape": str(shape), "batch": batch, "vectors/s": batch / seconds, "ms": 1e3 * seconds}
    row["times the floor"] = seconds / floor_seconds(shape, batch, bench)
    own = bench.speeds.get(("SAE step", shape, batch, "ours"))
    if own and way != "ours":
        row["ours faster by"] = own * seconds / batch
    yield {**row, **bench.peak()}


def _several(step: Callable[[Tensor], object], x: Tensor, count: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(count):
            step(x)

    return work


def parts(bench: Bench, *, sweep: bool) -> list[Part]:
    """Rates and checks, then each piece and each way of a step at each shape and batch."""
    shapes, batches = (TOY_SHAPES, TOY_BATCHES) if bench.toy else (PAPER_SHAPES, PAPER_BATCHES)
    found = [Part("rates", partial(rates_row, bench)), Part("SAE kernels against float64", partial(checked_against_double, bench))]
    found += [Part(f"SAE pieces, {shape}", partial(pieces, bench, shape, batches[0])) for shape in shapes]
    if sweep:
        found += [Part(f"SAE launch shapes, {shape}", partial(launch_shapes, bench, shape, batches[0]), ("triton",)) for shape in shapes]
    for batch in batches:
        for shape in shapes:
            for way, (_, needs) in WAYS.items():
                found.append(Part(f"SAE step, {way}, {shape}, batch {batch}", partial(step_row, bench, shape, batch, way), needs))
    return found
