"""The plain SAE step, for comparison: every latent, autograd, and Adam one tensor after the other or all together."""

from __future__ import annotations

import torch
from torch import Tensor

from sarm.sae.model import TopKSAE, normalized_mse
from sarm.sae.step import AuxK, Objective, SAETensors


def random_sae(*, hidden_size: int, n_latents: int, k: int, dtype: torch.dtype = torch.float64) -> TopKSAE:
    """An SAE whose biases are not 0 and whose decoder is not tied, so that no term of a gradient vanishes."""
    draw = torch.Generator().manual_seed(3)
    sae = TopKSAE(hidden_size=hidden_size, n_latents=n_latents, k=k)
    sae.reset(draw)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return sae.to(dtype)


def dense_loss(sae: TopKSAE, x: Tensor, *, objective: Objective, auxk: AuxK | None = None) -> Tensor:
    """The loss through `encode` and `decode`, for autograd."""
    encoding = sae.encode(x)
    reconstruction = sae.decode(encoding.latents)
    squared = (reconstruction - x).pow(2).sum(dim=-1)
    loss = (normalized_mse(reconstruction, x) if objective == "normalized_mse" else squared).mean()
    if auxk is None or not auxk.dead.any():
        return loss
    k = min(sae.hidden_size // 2, int(auxk.dead.sum()))
    values, indices = encoding.pre_acts.masked_fill(~auxk.dead, float("-inf")).topk(k, dim=-1)
    revived = torch.zeros_like(encoding.pre_acts).scatter(-1, indices, values)
    return loss + auxk.weight * normalized_mse(sae.decoder(revived), (x - reconstruction).detach()).mean()


def tensors_of(sae: TopKSAE) -> SAETensors:
    """Its parameters as a step takes them."""
    return SAETensors(sae.pre_bias.detach(), sae.latent_bias.detach(), sae.encoder.weight.detach(), sae.decoder_rows())


def dense_gradients(sae: TopKSAE, loss: Tensor) -> SAETensors:
    """What autograd gives, in the same form."""
    parameters = [sae.pre_bias, sae.latent_bias, sae.encoder.weight, sae.decoder.weight]
    pre_bias, latent_bias, encoder, decoder = torch.autograd.grad(loss, parameters)
    return SAETensors(pre_bias, latent_bias, encoder, decoder.T)
