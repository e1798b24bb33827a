"""SparseRM's selection, projections, head and losses, and SAFER's linear score: pure math on tensors.

Source: SparseRM (arXiv 2511.07896) and SAFER (arXiv 2507.00665) as described in `related-systems.md` sections 2 and 3.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sarm.reward.losses import preference_losses
from sarm.reward.steering import FeatureSums, feature_scores_of_sums
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import Normalization, normalized

Loss = Literal["margin", "bradley_terry", "bce"]
PAIRS_AT_ONCE = 256


class PairStatistics(NamedTuple):
    """Sums over pairs, `[n_latents]` each: replies in which a latent fires (is above 0), and its positive activations."""

    chosen_fired: Tensor
    rejected_fired: Tensor
    chosen_sum: Tensor
    rejected_sum: Tensor
    pairs: int


def pair_statistics(chosen_latents: Tensor, rejected_latents: Tensor) -> PairStatistics:
    """Statistics of some pairs, in float64: `[pairs, n_latents]` twice."""
    chosen, rejected = chosen_latents.double().clamp(min=0), rejected_latents.double().clamp(min=0)
    fired = [(side > 0).double().sum(dim=0) for side in (chosen, rejected)]
    return PairStatistics(fired[0], fired[1], chosen.sum(dim=0), rejected.sum(dim=0), len(chosen))


def added(one: PairStatistics, other: PairStatistics) -> PairStatistics:
    """Statistics of both sets of pairs together."""
    tensors = [left + right for left, right in zip(one[:4], other[:4], strict=True)]
    return PairStatistics(tensors[0], tensors[1], tensors[2], tensors[3], one.pairs + other.pairs)


def latent_statistics(sae: TopKSAE, chosen: Tensor, rejected: Tensor) -> PairStatistics:
    """Firing counts and sums of all pairs, a part of them at a time: a whole matrix of latents would not fit at scale.

    States `[pairs, hidden_size]` twice. Raises ValueError without a pair.
    """
    if not len(chosen):
        raise ValueError("there is no pair to rank latents by")
    found = pair_statistics(*(torch.zeros(0, sae.n_latents) for _ in range(2)))
    with torch.inference_mode():
        for first, second in zip(chosen.split(PAIRS_AT_ONCE), rejected.split(PAIRS_AT_ONCE), strict=True):
            sides = [sae.encode(sae.prepare(states.float())).latents for states in (first, second)]
            found = added(found, pair_statistics(sides[0], sides[1]))
    return found


def separation(statistics: PairStatistics) -> Tensor:
    """Firing frequency among chosen minus that among rejected, `[n_latents]`, between -1 and 1."""
    return (statistics.chosen_fired - statistics.rejected_fired) / statistics.pairs


def top_per_side(differences: Tensor, per_side: int) -> Tensor:
    """Indices `[2 per_side]`: the largest differences, largest first, then the smallest, smallest first; the lower index at a tie.

    No index stands on both sides. Raises ValueError where the dictionary has fewer than `2 per_side` latents.
    """
    if not 1 <= per_side <= len(differences) // 2:
        raise ValueError(f"per_side = {per_side} takes {2 * per_side} of {len(differences)} latents; choose 1 to {len(differences) // 2}")
    chosen = torch.sort(differences, descending=True, stable=True).indices[:per_side]
    # Latents that fire on neither side are tied at 0: one that stands for chosen must not stand for rejected as well.
    rest = (-differences).index_fill(0, chosen, float("-inf"))
    return torch.cat([chosen, torch.sort(rest, descending=True, stable=True).indices[:per_side]])


def random_columns(n_latents: int, per_side: int, generator: torch.Generator) -> Tensor:
    """As many different indices as `top_per_side` gives, drawn at random."""
    if 2 * per_side > n_latents:
        raise ValueError(f"per_side = {per_side} takes {2 * per_side} of {n_latents} latents; choose 1 to {n_latents // 2}")
    return torch.randperm(n_latents, generator=generator)[: 2 * per_side]


def random_directions(count: int, hidden_size: int, generator: torch.Generator) -> Tensor:
    """Unit vectors in random directions, `[count, hidden_size]`."""
    return functional.normalize(torch.randn(count, hidden_size, generator=generator), dim=-1)


def projections(states: Tensor, directions: Tensor) -> Tensor:
    """Inner products `[..., hidden_size]` with `[n, hidden_size]`: `[..., n]`. Not SAE codes: nothing is rectified or selected."""
    return states @ directions.T


def pair_losses(chosen: Tensor, rejected: Tensor, *, loss: Loss, margin: float = 1.0) -> Tensor:
    """Loss of each pair of rewards, `[pairs]`, in float32.

    `margin`: max(0, margin - (chosen - rejected)); `bradley_terry`: -log sigmoid of the difference; `bce`: cross-entropy of each
    reply alone, chosen against 1 and rejected against 0, their mean.
    """
    chosen, rejected = chosen.float(), rejected.float()
    if loss == "margin":
        return functional.relu(margin - (chosen - rejected))
    if loss == "bradley_terry":
        return preference_losses(chosen, rejected)
    return (functional.softplus(-chosen) + functional.softplus(rejected)) / 2


class Projections(nn.Module):
    """A state as inner products with fixed directions `[n, hidden_size]`."""

    directions: Tensor

    def __init__(self, directions: Tensor, normalization: Normalization) -> None:
        super().__init__()
        self.register_buffer("directions", directions)
        self.normalization = normalization

    @property
    def width(self) -> int:
        """Numbers given for a state."""
        return len(self.directions)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[..., n]`, in float32."""
        return projections(normalized(states.float(), self.normalization), self.directions)


class Activations(nn.Module):
    """A state as some latents `chosen [n]` of a frozen SAE."""

    chosen: Tensor

    def __init__(self, sae: TopKSAE, chosen: Tensor) -> None:
        super().__init__()
        self.sae = sae.requires_grad_(False)
        self.register_buffer("chosen", chosen)

    @property
    def width(self) -> int:
        """Numbers given for a state."""
        return len(self.chosen)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[..., n]`, in float32."""
        return self.sae.encode(self.sae.prepare(states.float())).latents[..., self.chosen]


class Dense(nn.Module):
    """A state as it is, or as an SAE would see it."""

    def __init__(self, hidden_size: int, normalization: Normalization) -> None:
        super().__init__()
        self.width = hidden_size
        self.normalization = normalization

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden_size]` to the same, in float32."""
        return normalized(states.float(), self.normalization)


Reader = Projections | Activations | Dense


class StateHead(nn.Module):
    """A reward from one hidden state: a fixed reader, perhaps one hidden layer with ReLU, a linear output without bias.

    A constant changes neither the order of rewards nor the losses on differences, so the output has no bias.
    """

    def __init__(self, reader: Reader, *, width: int = 0) -> None:
        """`width` hidden units; 0 for a linear head."""
        super().__init__()
        self.reader = reader
        self.hidden = nn.Linear(reader.width, width) if width else None
        self.score = nn.Linear(width or reader.width, 1, bias=False)

    def reset(self, generator: torch.Generator) -> None:
        """Random weights: uniform in +-1/sqrt(inputs), torch's rule for linear layers."""
        with torch.no_grad():
            for layer in (self.hidden, self.score):
                for parameter in layer.parameters() if layer is not None else ():
                    bound = layer.in_features**-0.5  # type: ignore[union-attr]
                    parameter.copy_(torch.rand(parameter.shape, generator=generator) * (2 * bound) - bound)

    def features_of(self, read: Tensor) -> Tensor:
        """What the output layer sees: `[..., n]` from the reader to `[..., width or n]`."""
        return read if self.hidden is None else functional.relu(self.hidden(read))

    def reward_of(self, read: Tensor) -> Tensor:
        """`[..., n]` from the reader to `[...]`."""
        return self.score(self.features_of(read)).squeeze(-1)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[...]`."""
        return self.reward_of(self.reader(states))


def head_parameters(inputs: int, width: int) -> int:
    """Trained numbers of a head: inputs x width + width + width; inputs alone for a linear head (`width` 0)."""
    return inputs * width + 2 * width if width else inputs


def safer_scores(statistics: PairStatistics) -> Tensor:
    """SAFER's s_i: (h+ - h-) / (h+ + h- + C) of positive activations, C the mean over latents of h+ + h-; `[n_latents]`."""
    return feature_scores_of_sums(FeatureSums(statistics.chosen_sum, statistics.rejected_sum))


def strongest(scores: Tensor, count: int) -> Tensor:
    """Indices of the largest absolute scores, largest first, the lower index at a tie; latents with score 0 are left out.

    Raises ValueError where no latent has a score other than 0.
    """
    ranked = torch.sort(scores.abs(), descending=True, stable=True).indices[:count]
    kept = ranked[scores[ranked] != 0]
    if not len(kept):
        raise ValueError("no latent fires on one side more than on the other; there is nothing to score with")
    return kept


def safer_head(sae: TopKSAE, scores: Tensor, count: int) -> StateHead:
    """The training-free score: the sum over the strongest latents of sign(s_i) z_i."""
    chosen = strongest(scores, count)
    head = StateHead(Activations(sae, chosen))
    with torch.no_grad():
        head.score.weight.copy_(scores[chosen].sign()[None])
    return head


def accuracy(chosen: Tensor, rejected: Tensor) -> float:
    """Share of pairs with the chosen reward above the rejected one; an exact tie counts one half."""
    if not len(chosen):
        return math.nan
    return float(((chosen > rejected).double() + 0.5 * (chosen == rejected).double()).mean())
