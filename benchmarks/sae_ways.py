"""The SAE step in all its forms, as workers of `sae_step.py`: `python sae_ways.py NAME FILE THREADS`.

`dense` is the plain loop, `ours` the step of the suite. `dense+SAVING` is the dense step written out with that saving alone,
`ours-SAVING` the written-out step with all savings but that one; `dense+` has none and `ours-` all. `floor:PART` does the part alone
that no version can leave out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from worker import Problem, Step, serve

from sarm.config.train import SAETrainingConfig
from sarm.sae import sparse_products
from sarm.sae.model import TopKSAE
from sarm.sae.topk_selection import Selection, select_topk
from sarm.sae.update import SAEUpdate

SAVINGS = {
    "decode": "decode from k columns",
    "values": "gradient of the latents at k places",
    "weights": "weight gradients from active pairs",
    "bias": "pre_bias gradient as one product with a vector",
    "topk": "TopK by groups",
    "adam": "fused Adam",
    "buffers": "buffers used again",
}
PARTS = ("encoder", "topk", "grouped topk", "adam")


def load_sae(problem: Problem) -> TopKSAE:
    """The problem's initial SAE, decoder at unit norm."""
    n_latents, hidden_size = problem.weights["encoder.weight"].shape
    sae = TopKSAE(hidden_size=hidden_size, n_latents=n_latents, k=problem.k)
    sae.load_state_dict(problem.weights)
    sae.normalize_decoder()
    return sae


def start_dense(problem: Problem) -> Step:
    """`encode`, `decode`, autograd, and Adam as torch gives it on a CPU by default."""
    sae = load_sae(problem)
    adam = torch.optim.Adam(sae.parameters(), lr=problem.learning_rate)
    done = 0

    def step(x: Tensor) -> Tensor:
        nonlocal done
        adam.zero_grad()
        loss = (sae.decode(sae.encode(x).latents) - x).pow(2).sum(dim=-1).mean()
        loss.backward()
        adam.step()
        if done % problem.unit_norm_every == 0:
            sae.normalize_decoder()
        done += 1
        return loss.detach()

    return step


def start_ours(problem: Problem) -> Step:
    """`SAEUpdate` as the job uses it."""
    sae = load_sae(problem)
    size = problem.batches.shape[1]
    config = SAETrainingConfig(
        layer=1,
        n_latents=sae.n_latents,
        k=sae.k,
        vectors=size * 10**6,
        batch_vectors=size,
        buffer_vectors=size,
        objective="squared_error",
        learning_rate=problem.learning_rate,
        warmup_fraction=0.0,
        unit_norm_every=problem.unit_norm_every,
    )
    update = SAEUpdate(config, sae, steps=10**6)
    done = 0

    def step(x: Tensor) -> Tensor:
        nonlocal done
        result = update.step(x, done)
        done += 1
        return torch.tensor(result.loss)

    return step


class Active(NamedTuple):
    """A code in both forms: k places a row, and (where a dense product wants it) all of it."""

    kept: Selection
    dense: Tensor | None


class WrittenOut:
    """The step's products one by one, each dense or sparse as `savings` says."""

    def __init__(self, problem: Problem, savings: frozenset[str]) -> None:
        self.problem, self.savings = problem, savings
        self.sae = load_sae(problem)
        self.rows = self.sae.decoder_rows()
        self.encoder, self.latent_bias, self.pre_bias = (
            tensor.detach() for tensor in (self.sae.encoder.weight, self.sae.latent_bias, self.sae.pre_bias)
        )
        self.tensors = [self.pre_bias, self.latent_bias, self.encoder, self.rows]
        self.adam = torch.optim.Adam(self.tensors, lr=problem.learning_rate, fused=True if "adam" in savings else None)
        self.kept_buffers: dict[str, Tensor] = {}
        self.done = 0

    def buffer(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised matrix, a new one unless buffers are used again."""
        if "buffers" not in self.savings:
            return torch.empty(rows, columns)
        if name not in self.kept_buffers:
            self.kept_buffers[name] = torch.empty(rows, columns)
        return self.kept_buffers[name]

    @torch.no_grad()
    def step(self, x: Tensor) -> Tensor:
        """One optimizer step on `[batch, hidden_size]`."""
        centered = x - self.pre_bias
        pre_acts = self.buffer("pre_acts", len(x), len(self.encoder))
        torch.addmm(self.latent_bias, centered, self.encoder.T, out=pre_acts)
        kept = select_topk(pre_acts, self.problem.k) if "topk" in self.savings else Selection(*pre_acts.topk(self.problem.k, dim=-1))
        code = None if {"decode", "weights"} <= self.savings else torch.zeros_like(pre_acts).scatter(-1, kept.indices, kept.values)
        error = self.decoded(Active(kept, code)) + self.pre_bias - x
        gradients = self.gradients(centered, Active(kept, code), error * (2 / len(x)))
        for tensor, gradient in zip(self.tensors, gradients, strict=True):
            tensor.grad = gradient
        self.adam.step()
        if self.done % self.problem.unit_norm_every == 0:
            self.sae.normalize_decoder()
        self.done += 1
        return error.pow(2).sum(dim=-1).mean()

    def decoded(self, code: Active) -> Tensor:
        """Latents times decoder."""
        if "decode" in self.savings:
            return sparse_products.decode(code.kept.values, code.kept.indices, self.rows)
        assert code.dense is not None
        return code.dense @ self.rows

    def gradients(self, centered: Tensor, code: Active, gradient: Tensor) -> list[Tensor]:
        """Of pre_bias, latent_bias, encoder and decoder rows."""
        indices = code.kept.indices
        pairs = sparse_products.pairs_of([indices], len(self.rows))
        if "values" in self.savings:
            passed = sparse_products.value_gradients(gradient, self.rows, pairs)
        else:
            passed = (gradient @ self.rows.T).gather(1, indices).reshape(-1)
        dense_passed = None
        if not {"weights", "bias"} <= self.savings:
            dense_passed = torch.zeros(len(indices), len(self.rows)).scatter(1, indices, passed.view_as(indices))
        latent_bias = sparse_products.latent_sums(passed, pairs, len(self.rows)) if dense_passed is None else dense_passed.sum(dim=0)
        if "bias" in self.savings:
            taken = latent_bias @ self.encoder
        else:
            assert dense_passed is not None
            taken = (dense_passed @ self.encoder).sum(dim=0)
        encoder, rows = (self.buffer(name, *self.rows.shape) for name in ("encoder", "rows"))
        if "weights" in self.savings:
            sparse_products.weight_gradients(passed, centered, pairs, encoder)
            sparse_products.weight_gradients(code.kept.values.reshape(-1), gradient, pairs, rows)
        else:
            assert dense_passed is not None and code.dense is not None
            torch.mm(dense_passed.T, centered, out=encoder)
            torch.mm(code.dense.T, gradient, out=rows)
        return [gradient.sum(dim=0) - taken, latent_bias, encoder, rows]


def start_part(problem: Problem, part: str) -> Step:
    """One part of the step over and over: `encoder`, `topk`, `grouped topk` or `adam` (fused)."""
    sae = load_sae(problem)
    encoder = sae.encoder.weight.detach()
    x = problem.batches[0]
    pre_acts = torch.addmm(sae.latent_bias.detach(), x, encoder.T)
    tensors = [sae.pre_bias.detach(), sae.latent_bias.detach(), encoder, sae.decoder_rows()]
    adam = torch.optim.Adam(tensors, lr=1e-9, fused=True)
    if part == "adam":
        for tensor in tensors:
            tensor.grad = torch.full_like(tensor, 1e-3)
    parts: dict[str, Callable[[], object]] = {
        "encoder": lambda: torch.mm(x, encoder.T, out=pre_acts),
        "topk": lambda: pre_acts.topk(problem.k, dim=-1),
        "grouped topk": lambda: select_topk(pre_acts, problem.k),
        "adam": adam.step,
    }
    nothing, alone = torch.zeros(()), parts[part]

    @torch.no_grad()
    def step(_: Tensor) -> Tensor:
        alone()
        return nothing

    return step


def starter(name: str) -> Callable[[Problem], Step]:
    """The way of that name."""
    if name.startswith("floor:"):
        return lambda problem: start_part(problem, name.removeprefix("floor:"))
    if name in ("dense", "ours"):
        return start_dense if name == "dense" else start_ours
    base, sign, saving = name.partition("+" if name.startswith("dense") else "-")
    one = frozenset({saving} if saving else ())
    if base not in ("dense", "ours") or not sign or one - set(SAVINGS):
        raise SystemExit(f"unknown way {name!r}; one of dense, ours, dense+SAVING, ours-SAVING, floor:PART; savings: {', '.join(SAVINGS)}")
    savings = one if base == "dense" else frozenset(SAVINGS) - one
    return lambda problem: WrittenOut(problem, savings).step


if __name__ == "__main__":
    way = sys.argv.pop(1)
    serve(starter(way))
