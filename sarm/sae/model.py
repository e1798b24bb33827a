"""TopK sparse autoencoder: pure math on tensors. Source: Eq. 2 to 8; `src/sae.py` of the released code."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

STANDARDIZE_EPSILON = 1e-6


class Standardized(NamedTuple):
    """Hidden states with mean 0 and standard deviation 1 over the last axis, and what was taken out."""

    values: Tensor
    mean: Tensor
    std: Tensor


class Encoding(NamedTuple):
    """`pre_acts` and `latents`, both `[..., n_latents]`."""

    pre_acts: Tensor
    latents: Tensor


class ReconstructionQuality(NamedTuple):
    """How well held-out hidden states are reconstructed.

    `fvu`: residual sum of squares over the sum of squares around the mean vector (1 = no better than the mean).
    `normalized_mse`: mean over vectors of the ratio of mean squares. `dead_share`: latents that never fired.
    `l0`: mean count of non-zero latents.
    """

    fvu: float
    normalized_mse: float
    dead_share: float
    l0: float


def standardize(hidden_states: Tensor) -> Standardized:
    """Per-token standardisation over the hidden axis, in the tensor's own precision.

    Shapes: `[..., hidden_size]` to the same; mean and std `[..., 1]`. The standard deviation is unbiased (divisor d - 1)
    and epsilon stands outside the root. Source: `pre_process`, src/sae.py:32-40.
    """
    mean = hidden_states.mean(dim=-1, keepdim=True)
    centered = hidden_states - mean
    std = centered.std(dim=-1, keepdim=True)
    return Standardized(values=centered / (std + STANDARDIZE_EPSILON), mean=mean, std=std)


def topk(pre_acts: Tensor, k: int) -> Tensor:
    """Keep the k largest values of the last axis, zero elsewhere. By value: negative ones can be kept. Source: Eq. 4, src/sae.py:77-81."""
    if not 1 <= k <= pre_acts.shape[-1]:
        raise ValueError(f"k = {k} must lie between 1 and the number of latents, {pre_acts.shape[-1]}")
    values, indices = pre_acts.topk(k, dim=-1)
    return torch.zeros_like(pre_acts).scatter(-1, indices, values)


def normalized_mse(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Ratio of mean squares over the hidden axis: `[..., hidden_size]` to `[...]`. Source: src/sae.py:22-30."""
    return (reconstruction - target).pow(2).mean(dim=-1) / target.pow(2).mean(dim=-1)


def masked_row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over a row's unmasked positions, then over rows: `[batch, seq]` to a scalar, summed in float32.

    Deviation: the released code casts the mask to bfloat16 first, so that its count is rounded to 8 bits (301 becomes 300);
    ours counts exactly (docs/deviations.md). Source: src/sae.py:25-30.
    """
    weights = mask.to(torch.float32)
    return ((values.float() * weights).sum(dim=-1) / weights.sum(dim=-1)).mean()


class TopKSAE(nn.Module):
    """`pre_acts = W_enc (x - pre_bias) + latent_bias`, `latents = TopK(pre_acts)`, `reconstruction = W_dec latents + pre_bias`.

    Parameter names and shapes are those of the released checkpoints: `encoder.weight [n_latents, hidden_size]`,
    `decoder.weight [hidden_size, n_latents]`, `pre_bias [hidden_size]`, `latent_bias [n_latents]`.
    Deviation: Eq. 2 has no `latent_bias`; the released code has (src/sae.py:73-75).
    """

    def __init__(self, *, hidden_size: int, n_latents: int, k: int, standardizes: bool = True) -> None:
        super().__init__()
        if not 1 <= k <= n_latents:
            raise ValueError(f"k = {k} must lie between 1 and n_latents = {n_latents}")
        self.k = k
        self.standardizes = standardizes
        self.pre_bias = nn.Parameter(torch.zeros(hidden_size))
        self.latent_bias = nn.Parameter(torch.zeros(n_latents))
        self.encoder = nn.Linear(hidden_size, n_latents, bias=False)
        self.decoder = nn.Linear(n_latents, hidden_size, bias=False)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.encoder.in_features

    @property
    def n_latents(self) -> int:
        """Width of the dictionary."""
        return self.encoder.out_features

    @staticmethod
    def fresh(*, hidden_size: int, n_latents: int, k: int, generator: torch.Generator, standardizes: bool = True) -> TopKSAE:
        """An SAE with the random weights of `reset` and no others: the constructor draws some of its own, which none should pay for."""
        with torch.device("meta"):
            sae = TopKSAE(hidden_size=hidden_size, n_latents=n_latents, k=k, standardizes=standardizes)
        sae.to_empty(device="cpu")
        sae.reset(generator)
        return sae

    def reset(self, generator: torch.Generator) -> None:
        """Random encoder (uniform in +-1/sqrt(hidden_size), torch's rule for linear layers), decoder tied to it, biases 0."""
        with torch.no_grad():
            bound = self.hidden_size**-0.5
            weights = torch.rand(self.n_latents, self.hidden_size, generator=generator) * (2 * bound) - bound
            self.encoder.weight.copy_(weights)
            self.decoder.weight.copy_(weights.T)
            self.pre_bias.zero_()
            self.latent_bias.zero_()

    @torch.no_grad()
    def decoder_rows(self) -> Tensor:
        """The decoder by latent, `[n_latents, hidden_size]` contiguous, in the memory of `decoder.weight`, which keeps its name and shape.

        The first call puts it into that order, in which what a step needs of a latent lies together.
        """
        if not self.decoder.weight.T.is_contiguous():
            self.decoder.weight = nn.Parameter(self.decoder.weight.detach().T.contiguous().T)
        return self.decoder.weight.detach().T

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Set each decoder column to unit length. Source: section Setup, SAE Pretraining."""
        self.decoder.weight /= self.decoder.weight.norm(dim=0, keepdim=True)

    def prepare(self, hidden_states: Tensor) -> Tensor:
        """What the encoder sees: standardised hidden states, or the raw ones."""
        return standardize(hidden_states).values if self.standardizes else hidden_states

    def pre_acts(self, x: Tensor) -> Tensor:
        """`[..., hidden_size]` (prepared) to `[..., n_latents]`."""
        return self.encoder(x - self.pre_bias) + self.latent_bias

    def encode(self, x: Tensor) -> Encoding:
        """`[..., hidden_size]` (prepared) to pre-activations and TopK latents."""
        pre_acts = self.pre_acts(x)
        return Encoding(pre_acts=pre_acts, latents=topk(pre_acts, self.k))

    def decode(self, latents: Tensor) -> Tensor:
        """`[..., n_latents]` to `[..., hidden_size]`, on the scale of prepared hidden states. Source: Eq. 3."""
        return self.decoder(latents) + self.pre_bias

    def restore(self, reconstruction: Tensor, hidden_states: Tensor) -> Tensor:
        """A reconstruction back on the scale of the hidden states that it was made from, both `[..., hidden_size]`."""
        if not self.standardizes:
            return reconstruction
        removed = standardize(hidden_states)
        return reconstruction * removed.std + removed.mean

