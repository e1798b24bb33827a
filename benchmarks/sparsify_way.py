"""EleutherAI sparsify's SAE trained on the problem of `sae_step.py`; runs in the environment that has it installed.

Its `SparseCoder` encodes and decodes (k columns, its own backward); loss, Adam and renormalisation every so many steps are those of
the other ways, so that all do the same training. Its own trainer also projects gradients and renormalises before each step.
"""

from __future__ import annotations

import torch
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor
from worker import Problem, Step, serve


def start(problem: Problem) -> Step:
    """Its module with our initial weights."""
    hidden_size = problem.batches.shape[2]
    n_latents = len(problem.weights["latent_bias"])
    coder = SparseCoder(hidden_size, SparseCoderConfig(num_latents=n_latents, k=problem.k), dtype=torch.float32)
    with torch.no_grad():
        coder.encoder.weight.copy_(problem.weights["encoder.weight"])
        coder.encoder.bias.copy_(problem.weights["latent_bias"])
        coder.W_dec.copy_(problem.weights["decoder.weight"].T)
        coder.b_dec.copy_(problem.weights["pre_bias"])
    coder.set_decoder_norm_to_unit_norm()
    adam = torch.optim.Adam(coder.parameters(), lr=problem.learning_rate)
    done = 0

    def step(x: Tensor) -> Tensor:
        nonlocal done
        adam.zero_grad()
        loss = (coder(x).sae_out - x).pow(2).sum(dim=-1).mean()
        loss.backward()
        adam.step()
        if done % problem.unit_norm_every == 0:
            coder.set_decoder_norm_to_unit_norm()
        done += 1
        return loss.detach()

    return step


if __name__ == "__main__":
    serve(start)
