"""Sparse autoencoders of other projects, in the shape of ours: other activations, input normalisations and bias conventions."""

from __future__ import annotations

from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from sarm.sae.model import Encoding, TopKSAE, standardize, topk

Activation = Literal["topk", "relu_topk", "jumprelu", "relu"]
Normalization = Literal["none", "standardize", "layer-norm", "norm-sqrt-d"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)

# Source: sae_lens 6.54.12, saes/sae.py, `run_time_activation_ln_in`.
LAYER_NORM_EPSILON = 1e-5


def normalized(hidden_states: Tensor, normalization: Normalization) -> Tensor:
    """`[..., hidden_size]` as an encoder of that input normalisation sees it, in the tensor's own precision."""
    if normalization == "norm-sqrt-d":
        return hidden_states * (hidden_states.shape[-1] ** 0.5 / hidden_states.norm(dim=-1, keepdim=True))
    if normalization == "layer-norm":
        centered = hidden_states - hidden_states.mean(dim=-1, keepdim=True)
        return centered / (centered.std(dim=-1, keepdim=True) + LAYER_NORM_EPSILON)
    return standardize(hidden_states).values if normalization == "standardize" else hidden_states


class Convention(TypedDict):
    """How an encoder's tensors are to be read; `k` is 0 for activations that have none."""

    activation: Activation
    k: int
    normalization: Normalization
    subtracts_bias: bool


class SparseEncoder(TopKSAE):
    """A sparse autoencoder whose activation, input normalisation and use of the decoder's bias are named values.

    `pre_acts = W_enc (x - pre_bias) + latent_bias`, where `pre_bias` is taken off only if `subtracts_bias`; the latents are, by
    `activation`: `topk` the k largest pre-activations; `relu_topk` the same, negative ones set to 0; `jumprelu` each that lies
    above its `threshold` and above 0; `relu` each above 0. Decoding is ours. SARM and SparseRM use it where they use a `TopKSAE`.
    """

    threshold: Tensor

    def __init__(
        self,
        *,
        hidden_size: int,
        n_latents: int,
        activation: Activation,
        k: int = 0,
        normalization: Normalization = "none",
        subtracts_bias: bool = True,
    ) -> None:
        """`k` counts for the two top-k activations alone and is 0 for the others. Raises ValueError where it does not fit."""
        selects = activation in ("topk", "relu_topk")
        if selects != bool(k):
            raise ValueError(f"k = {k} does not go with activation = {activation!r}; only topk and relu_topk have a k")
        standardizes = normalization == "standardize"
        super().__init__(hidden_size=hidden_size, n_latents=n_latents, k=k or n_latents, standardizes=standardizes)
        self.activation, self.normalization, self.subtracts_bias = activation, normalization, subtracts_bias
        if activation == "jumprelu":
            self.register_buffer("threshold", torch.zeros(n_latents))

    @property
    def convention(self) -> Convention:
        """What its tensors do not say: the arguments of `SparseEncoder` beside its two sizes."""
        selects = self.activation in ("topk", "relu_topk")
        return Convention(
            activation=self.activation,
            k=self.k if selects else 0,
            normalization=self.normalization,
            subtracts_bias=self.subtracts_bias,
        )

    def prepare(self, hidden_states: Tensor) -> Tensor:
        """What the encoder sees: `[..., hidden_size]` normalised, in the tensor's own precision."""
        return normalized(hidden_states, self.normalization)

    def restore(self, reconstruction: Tensor, hidden_states: Tensor) -> Tensor:
        """A reconstruction back on the scale of the hidden states that it was made from, both `[..., hidden_size]`."""
        if self.normalization == "norm-sqrt-d":
            return reconstruction * (hidden_states.norm(dim=-1, keepdim=True) / self.hidden_size**0.5)
        if self.normalization == "layer-norm":
            removed = standardize(hidden_states)
            return reconstruction * removed.std + removed.mean
        return super().restore(reconstruction, hidden_states)

    def pre_acts(self, x: Tensor) -> Tensor:
        """`[..., hidden_size]` (prepared) to `[..., n_latents]`."""
        return super().pre_acts(x) if self.subtracts_bias else self.encoder(x) + self.latent_bias

    def encode(self, x: Tensor) -> Encoding:
        """`[..., hidden_size]` (prepared) to pre-activations and latents."""
        pre_acts = self.pre_acts(x)
        if self.activation == "topk":
            return Encoding(pre_acts, topk(pre_acts, self.k))
        positive = pre_acts.relu()
        if self.activation == "relu_topk":
            return Encoding(pre_acts, topk(positive, self.k))
        if self.activation == "jumprelu":
            return Encoding(pre_acts, positive * (pre_acts > self.threshold))
        return Encoding(pre_acts, positive)

    @torch.no_grad()
    def fold_decoder_norms(self) -> None:
        """Unit decoder columns, with encoder and latent bias scaled by the old norms: latents grow by them, the output stays.

        A JumpReLU threshold then counts in units of the new latents.
        """
        norms = self.decoder.weight.norm(dim=0)
        self.decoder.weight.div_(norms)
        self.encoder.weight.mul_(norms[:, None])
        self.latent_bias.mul_(norms)
