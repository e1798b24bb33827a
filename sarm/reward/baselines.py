"""Reward models of Table 1 whose head is more than one linear layer: gated objectives, a value head, gated distributions.

In each of them the reward is `score.weight . features` in float32, so what reads features and head of a SARM reads these too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sarm.job import UsageProblem
from sarm.reward.models import FixedHead, PooledOutput, RewardModel, linear_head

# `<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n` of Llama 3: the gate reads the state at its first token, the
# end of the prompt. Source: rewardbench 0.1.4, models/qrm.py.
LLAMA3_ASSISTANT_OPENING = (128009, 128006, 78191, 128007, 271)

# Source: rewardbench 0.1.4, models/ldlreward.py.
LDL_BINS = 10


class PublishedRewardModel(RewardModel):
    """A decoder with its final norm and a published head.

    Deviation: heads compute in float32 whatever the backbone's precision; the published ArmoRM and GRM heads run in bfloat16,
    whose last digits make ties.
    """


def last_opening(input_ids: Tensor, last_index: Tensor, opening: Sequence[int]) -> Tensor:
    """Where the last assistant opening starts in each row: `[batch, seq]` and `[batch]` to `[batch]`.

    Tokens after `last_index` are padding and not searched. Raises UsageProblem for a row without one.
    """
    pattern = torch.tensor(opening, device=input_ids.device)
    width = len(pattern)
    if input_ids.shape[1] < width:
        raise UsageProblem(f"a conversation of {input_ids.shape[1]} tokens has no assistant header; raise max_length")
    starts = torch.arange(input_ids.shape[1] - width + 1, device=input_ids.device)
    matches = (input_ids.unfold(1, width, 1) == pattern).all(dim=-1) & (starts + width - 1 <= last_index[:, None])
    found = torch.where(matches, starts, -1).amax(dim=-1)
    if bool((found < 0).any()):
        raise UsageProblem(
            f"a conversation has no assistant header {list(opening)} for the gate to read; use the model's own chat template, "
            "and raise max_length where it was cut off"
        )
    return found


class PromptGate(nn.Module):
    """Weights over objectives from the prompt's last state: `softmax(layers(x) / temperature) * logit_scale`."""

    def __init__(self, layers: Sequence[nn.Module], *, temperature: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = temperature

    def forward(self, prompt_states: Tensor) -> Tensor:
        """`[batch, hidden_size]` to `[batch, objectives]`."""
        return torch.softmax(self.layers(prompt_states) / self.temperature, dim=-1) * self.logit_scale


class GatedRewardModel(PublishedRewardModel):
    """Objectives by linear regression at the scored token, mixed by a gate at the prompt's end. ArmoRM, and QRM with quantiles.

    `reward = sum over objectives of gate * (mean over quantiles of (regression h)) @ transform`; the features are the summands.
    Source: arXiv 2406.12845 section 2; arXiv 2409.10164; rewardbench 0.1.4, models/qrm.py.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        gate: PromptGate,
        *,
        hidden_size: int,
        objectives: int,
        quantiles: int = 1,
        opening: Sequence[int] = LLAMA3_ASSISTANT_OPENING,
    ) -> None:
        super().__init__(backbone, FixedHead(torch.ones(objectives)))
        self.regression = nn.Linear(hidden_size, objectives * quantiles, bias=False)
        self.transform = nn.Linear(objectives, objectives, bias=False)
        self.gate = gate
        self.objectives, self.quantiles = objectives, quantiles
        self.opening = tuple(opening)

    def objective_rewards(self, pooled: Tensor) -> Tensor:
        """Each objective's expected reward after the transform: `[batch, hidden_size]` to `[batch, objectives]`."""
        quantiles = self.regression(pooled.float()).unflatten(-1, (self.objectives, self.quantiles))
        return self.transform(quantiles.mean(dim=-1))

    def features(self, pooled: Tensor) -> Tensor:
        """Not defined by the scored token alone: the gate reads the prompt. Raises TypeError; call the model."""
        raise TypeError("a gated reward model also needs the state at the end of the prompt; call it with the whole conversation")

    def gated_features(self, pooled: Tensor, prompt_states: Tensor) -> Tensor:
        """What each objective adds to the reward, from the scored token's and the prompt end's states, `[batch, objectives]`."""
        return self.gate(prompt_states.float()) * self.objective_rewards(pooled)

    def forward(self, input_ids: Tensor, last_index: Tensor, attention_mask: Tensor | None = None) -> PooledOutput:
        """Rewards at `last_index [batch]` of right-padded rows `[batch, seq]`. Raises UsageProblem for a row without header."""
        prompt_end = last_opening(input_ids, last_index, self.opening)
        states = self.backbone_states(input_ids, attention_mask)
        rows = torch.arange(len(states), device=states.device)
        features = self.gated_features(states[rows, last_index], states[rows, prompt_end])
        return PooledOutput(rewards=self.reward_of(features), hidden_states=states, features=features)


class ValueHeadRewardModel(PublishedRewardModel):
    """GRM's value head: linear layers with ReLU between them at the last token. The features are the last hidden layer.

    Source: arXiv 2406.10216; rewardbench 0.1.4, models/grm.py.
    """

    def __init__(self, backbone: PreTrainedModel, hidden_layers: Sequence[nn.Module], *, features: int) -> None:
        super().__init__(backbone, linear_head(features))
        self.hidden_layers = nn.Sequential(*hidden_layers)
        self.score_bias = nn.Parameter(torch.zeros(1))

    def features(self, pooled: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[..., features]`."""
        return self.hidden_layers(pooled.float())

    def reward_of(self, features: Tensor) -> Tensor:
        """`[..., features]` to `[...]`."""
        return super().reward_of(features) + self.score_bias


class LabelDistributionRewardModel(PublishedRewardModel):
    """LDL: a distribution over 10 reward levels per objective, mixed by a gate at the same token.

    `reward = sum over bins of p * linspace(0, 1, 10)`; the features are the mixed distribution p. The gate of the released
    checkpoint has no softmax unless its config says so, so p need not sum to 1. Source: rewardbench 0.1.4, models/ldlreward.py.
    """

    def __init__(
        self, backbone: PreTrainedModel, *, regression: Sequence[nn.Module], gate: Sequence[nn.Module], softmax: bool, temperature: float
    ) -> None:
        super().__init__(backbone, FixedHead(torch.linspace(0, 1, LDL_BINS)))
        self.regression = nn.Sequential(*regression)
        self.gate = nn.Sequential(*gate)
        self.softmax, self.temperature = softmax, temperature

    def features(self, pooled: Tensor) -> Tensor:
        """`[batch, hidden_size]` to `[batch, 10]`."""
        distributions = self.regression(pooled.float()).unflatten(-1, (-1, LDL_BINS)).softmax(dim=-1)
        weights = self.gate(pooled.float())
        if self.softmax:
            weights = (weights / self.temperature).softmax(dim=-1)
        return (weights.unsqueeze(-1) * distributions).sum(dim=-2)
