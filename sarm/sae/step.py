"""Loss of a TopK SAE on a batch and its gradients, computed from the active latents alone. Pure math on tensors.

Equal to autograd through `TopKSAE.encode` and `decode` up to rounding. Source: Eq. 2 to 5.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sarm.sae import sparse_products
from sarm.sae.sparse_products import Pairs
from sarm.sae.topk_selection import Selection, select_topk

Objective = Literal["normalized_mse", "squared_error"]
AUXK_ROWS = 64


class SAETensors(NamedTuple):
    """Parameters of a TopK SAE, or gradients of them; the decoder as rows: `[n_latents, hidden_size]` like the encoder."""

    pre_bias: Tensor
    latent_bias: Tensor
    encoder: Tensor
    decoder_rows: Tensor


class AuxK(NamedTuple):
    """The auxiliary loss: its weight, and which latents count as dead, `[n_latents]` bool. Source: Gao et al. 2025, AuxK."""

    weight: float
    dead: Tensor


class LossAndGradients(NamedTuple):
    """The loss (a scalar), which latents were active with a value other than 0, `[n_latents]` bool, and the gradients."""

    loss: Tensor
    fired: Tensor
    gradients: SAETensors


class Workspace:
    """Buffers that steps use again: several SAEs of one process take turns with the same memory.

    What a step returns is overwritten by the next step in the same workspace.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor; what an earlier call gave for that name, precision and device is void."""
        size = torch.Size(shape).numel()
        key = name, dtype, device
        if key not in self._buffers or len(self._buffers[key]) < size:
            self._buffers[key] = torch.empty(size, dtype=dtype, device=device)
        return self._buffers[key][:size].view(shape)


@torch.no_grad()
def loss_and_gradients(
    weights: SAETensors,
    x: Tensor,
    *,
    k: int,
    objective: Objective,
    auxk: AuxK | None,
    product_dtype: torch.dtype,
    workspace: Workspace,
) -> LossAndGradients:
    """One batch of prepared vectors `[batch, hidden_size]`: the mean loss and its gradients, which lie in the workspace.

    `objective` is `normalized_mse` (ratio of mean squares) or `squared_error` (sum over the hidden axis), each a mean over the batch.
    Products take their operands in `product_dtype`; sums of sparse ones and the loss are in single precision at least.
    The one `[batch, n_latents]` buffer is that of the pre-activations.
    """
    low = _operands(weights, product_dtype, workspace)
    centered = (x - weights.pre_bias).to(product_dtype)
    pre_acts = workspace.take("pre_acts", (len(x), len(low.encoder)), product_dtype, x.device)
    torch.addmm(low.latent_bias, centered, low.encoder.T, out=pre_acts)
    kept = select_topk(pre_acts, k)
    error = sparse_products.decode(kept.values, kept.indices, low.decoder_rows) + weights.pre_bias - x
    main = _normalized(error, x) if objective == "normalized_mse" else _squared(error)
    dead_loss = None if auxk is None else _auxk(pre_acts, -error, low, auxk)
    parts = [(kept, main)] if dead_loss is None else [(kept, main), dead_loss]
    pairs = sparse_products.pairs_of([part.indices for part, _ in parts], len(weights.encoder))
    counts = torch.zeros(len(weights.encoder), dtype=torch.int32, device=x.device)
    counts.index_add_(0, kept.indices.reshape(-1), (kept.values != 0).int().reshape(-1))
    loss = main.loss if dead_loss is None else main.loss + dead_loss[1].loss
    summands = [(part.values, term.gradient) for part, term in parts]
    gradients = _gradients(weights, low, centered, summands, pairs=pairs, workspace=workspace)
    return LossAndGradients(loss=loss, fired=counts > 0, gradients=gradients)


def _operands(weights: SAETensors, dtype: torch.dtype, workspace: Workspace) -> SAETensors:
    """The weights as products take them: themselves, or copies in another precision."""
    if weights.encoder.dtype == dtype:
        return weights
    matrices = [
        workspace.take(f"{name} operand", tuple(matrix.shape), dtype, matrix.device).copy_(matrix)
        for name, matrix in (("encoder", weights.encoder), ("decoder", weights.decoder_rows))
    ]
    return SAETensors(weights.pre_bias.to(dtype), weights.latent_bias.to(dtype), *matrices)


class _Term(NamedTuple):
    """A loss and its gradient with respect to the reconstruction, `[batch, hidden_size]`."""

    loss: Tensor
    gradient: Tensor


def _normalized(error: Tensor, target: Tensor) -> _Term:
    energy = target.pow(2).mean(dim=-1, keepdim=True)
    loss = (error.pow(2).mean(dim=-1, keepdim=True) / energy).mean()
    return _Term(loss, error * (2 / (energy * error.numel())))


def _squared(error: Tensor) -> _Term:
    return _Term(error.pow(2).sum(dim=-1).mean(), error * (2 / len(error)))


def _auxk(pre_acts: Tensor, residual: Tensor, weights: SAETensors, auxk: AuxK) -> tuple[Selection, _Term] | None:
    """Dead latents' best reconstruction of the residual, which counts as given, as a weighted normalised error; None without any."""
    dead = auxk.dead.nonzero().squeeze(1)
    if not len(dead):
        return None
    k = min(residual.shape[-1] // 2, len(dead))
    # Some rows at a time: the dead latents' columns would otherwise be a second buffer nearly as large as the first.
    found = [select_topk(rows[:, dead], k) for rows in pre_acts.split(AUXK_ROWS)]
    revived = Selection(torch.cat([part.values for part in found]), dead[torch.cat([part.indices for part in found])])
    term = _normalized(sparse_products.decode(revived.values, revived.indices, weights.decoder_rows) - residual, residual)
    return revived, _Term(term.loss * auxk.weight, term.gradient * auxk.weight)


def _gradients(
    weights: SAETensors, low: SAETensors, centered: Tensor, parts: list[tuple[Tensor, Tensor]], *, pairs: Pairs, workspace: Workspace
) -> SAETensors:
    """Gradients from each part's values `[batch, k]` and its gradient of the reconstruction; the parts' rows follow one another."""
    values = _stacked([values.reshape(-1) for values, _ in parts])
    gradient = _stacked([gradient for _, gradient in parts]).to(centered.dtype)
    passed = sparse_products.value_gradients(gradient, low.decoder_rows, pairs)
    latent_bias = sparse_products.latent_sums(passed, pairs, len(low.encoder)).to(weights.latent_bias.dtype)
    encoder, decoder = (
        workspace.take(name, tuple(matrix.shape), matrix.dtype, matrix.device)
        for name, matrix in (("encoder", weights.encoder), ("decoder", weights.decoder_rows))
    )
    # Added to the reconstruction (that of the first part alone) and taken off before the encoder: one product with a vector.
    pre_bias = parts[0][1].sum(dim=0) - latent_bias @ weights.encoder
    return SAETensors(
        pre_bias=pre_bias.to(weights.pre_bias.dtype),
        latent_bias=latent_bias,
        encoder=sparse_products.weight_gradients(passed, _stacked([centered] * len(parts)), pairs, encoder),
        decoder_rows=sparse_products.weight_gradients(values, gradient, pairs, decoder),
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
