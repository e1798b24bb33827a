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


class PairSum(NamedTuple):
    """A matrix's gradient before it is summed.

    Each latent's row is the sum over its pairs of the pair's factor `[P]` (row by row) times the pair's row of `vectors`
    `[rows, hidden_size]`.
    """

    factors: Tensor
    vectors: Tensor


class LossAndGradients(NamedTuple):
    """As Descent, with the gradients of the matrices formed; `total` is Descent's."""

    loss: Tensor
    fired: Tensor
    gradients: SAETensors
    total: Tensor


class Descent(NamedTuple):
    """The loss (a scalar), which latents were active with a value other than 0, `[n_latents]` bool, and the gradients.

    Those of the two biases are whole, those of the two matrices sums over `pairs` that are still to be formed.
    """

    loss: Tensor
    fired: Tensor
    pre_bias: Tensor
    latent_bias: Tensor
    encoder: PairSum
    decoder_rows: PairSum
    pairs: Pairs

    def total(self) -> Tensor:
        """A scalar that is finite only if the gradients are.

        Every gradient of the reconstruction is added into `pre_bias`, every one of a pair's value into `latent_bias`; the sums of the
        matrices are made of these and of the batch.
        """
        return self.pre_bias.sum(dtype=torch.float64) + self.latent_bias.sum(dtype=torch.float64)

    def gradients(self, weights: SAETensors, workspace: Workspace) -> SAETensors:
        """All gradients, in the precision of the weights; the matrices' lie in the workspace."""
        return SAETensors(
            pre_bias=self.pre_bias,
            latent_bias=self.latent_bias,
            encoder=self._summed(self.encoder, "encoder", weights.encoder, workspace),
            decoder_rows=self._summed(self.decoder_rows, "decoder", weights.decoder_rows, workspace),
        )

    def formed(self, weights: SAETensors, workspace: Workspace) -> LossAndGradients:
        """The same with the gradients of `gradients`."""
        return LossAndGradients(self.loss, self.fired, self.gradients(weights, workspace), self.total())

    def _summed(self, gradient: PairSum, name: str, matrix: Tensor, workspace: Workspace) -> Tensor:
        out = workspace.take(name, tuple(matrix.shape), matrix.dtype, matrix.device)
        return sparse_products.weight_gradients(gradient.factors, gradient.vectors, self.pairs, out)


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
    """As `descend`, with all gradients formed."""
    found = descend(weights, x, k=k, objective=objective, auxk=auxk, product_dtype=product_dtype, workspace=workspace)
    return found.formed(weights, workspace)


@torch.no_grad()
def descend(
    weights: SAETensors, x: Tensor, *, k: int, objective: Objective, auxk: AuxK | None, product_dtype: torch.dtype, workspace: Workspace
) -> Descent:
    """One batch of prepared vectors `[batch, hidden_size]`: the mean loss and its gradients.

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
    values = _stacked([part.values.reshape(-1) for part, _ in parts])
    gradient = _stacked([term.gradient for _, term in parts]).to(product_dtype)
    passed = sparse_products.value_gradients(gradient, low.decoder_rows, pairs)
    latent_bias = sparse_products.latent_sums(passed, pairs, len(weights.encoder)).to(weights.latent_bias.dtype)
    # Added to the reconstruction (that of the first part alone) and taken off before the encoder: one product with a vector.
    pre_bias = (main.gradient.sum(dim=0) - latent_bias @ weights.encoder).to(weights.pre_bias.dtype)
    return Descent(
        loss=main.loss if dead_loss is None else main.loss + dead_loss[1].loss,
        fired=_fired(kept, len(weights.encoder)),
        pre_bias=pre_bias,
        latent_bias=latent_bias,
        encoder=PairSum(passed, _stacked([centered] * len(parts))),
        decoder_rows=PairSum(values, gradient),
        pairs=pairs,
    )


def _operands(weights: SAETensors, dtype: torch.dtype, workspace: Workspace) -> SAETensors:
    """The weights as products take them: themselves, or copies in another precision."""
    if weights.encoder.dtype == dtype:
        return weights
    matrices = [
        workspace.take(f"{name} operand", tuple(matrix.shape), dtype, matrix.device).copy_(matrix)
        for name, matrix in (("encoder", weights.encoder), ("decoder", weights.decoder_rows))
    ]
    return SAETensors(weights.pre_bias.to(dtype), weights.latent_bias.to(dtype), *matrices)


def _fired(kept: Selection, n_latents: int) -> Tensor:
    counts = torch.zeros(n_latents, dtype=torch.int32, device=kept.indices.device)
    return counts.index_add_(0, kept.indices.reshape(-1), (kept.values != 0).int().reshape(-1)) > 0


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


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
