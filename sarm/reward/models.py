"""The reward models that stand on a decoder cut after a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sarm.backbone.decoder import blocks_of
from sarm.backbone.packed_forward import packed_states
from sarm.backbone.packed_tokens import Packed
from sarm.reward.steering import Edit, steer
from sarm.sae.model import TopKSAE


class PooledOutput(NamedTuple):
    """What a reward model computes at the scored token: reward `[batch]`, hidden states `[batch, hidden_size]`, features or None."""

    rewards: Tensor
    hidden_states: Tensor
    features: Tensor | None


class FixedHead(nn.Module):
    """An output layer whose `weight` `[1, features]` is given and never trained."""

    weight: Tensor

    def __init__(self, weights: Tensor) -> None:
        """`weights` `[features]`."""
        super().__init__()
        self.register_buffer("weight", weights[None])

    @property
    def in_features(self) -> int:
        """How many features it reads."""
        return int(self.weight.shape[1])


def linear_head(features: int) -> nn.Linear:
    """A head that can be trained, with torch's random weights."""
    return nn.Linear(features, 1, bias=False)


class RewardModel(nn.Module):
    """A truncated decoder with something that turns the scored token's hidden state into a reward.

    `model` is the backbone, `score` the linear head without bias, as in the released checkpoints.
    """

    score: nn.Linear | FixedHead

    def __init__(self, backbone: PreTrainedModel, score: nn.Linear | FixedHead) -> None:
        super().__init__()
        self.model = backbone
        self.score = score

    @property
    def layer(self) -> int:
        """Blocks kept."""
        return len(blocks_of(self.model))

    def backbone_states(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`[batch, seq]` to the residual stream after the last block, `[batch, seq, hidden_size]`."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state

    def features(self, pooled: Tensor) -> Tensor:
        """What the head sees: `[..., hidden_size]` to `[..., features]`."""
        raise TypeError(f"{type(self).__name__} defines no features")

    def reward_of(self, features: Tensor) -> Tensor:
        """`[..., features]` to `[...]`, in float32: low precision makes ties."""
        return nn.functional.linear(features.float(), self.score.weight.float()).squeeze(-1)

    def pair_rewards(self, input_ids: Tensor, position_ids: Tensor, mask: Tensor, chosen_index: Tensor, rejected_index: Tensor) -> Tensor:
        """Rewards of pairs that share a row (`sarm.reward.shared_prefix`): all chosen, then all rejected, `[2 pairs]`."""
        states = self.model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        pooled = torch.cat([states[rows, chosen_index], states[rows, rejected_index]])
        return self.reward_of(self.features(pooled))

    def packed_rewards(self, row: Packed) -> tuple[Tensor, Tensor]:
        """Rewards `[kept]` and hidden states `[kept, hidden_size]` at the kept tokens of packed conversations.

        Only for backbones that `sarm.backbone.packed_forward.can_pack`.
        """
        pooled = self.model.get_submodule("norm")(packed_states(self.model, row, [self.layer])[self.layer])
        return self.reward_of(self.features(pooled)), pooled

    def forward(self, input_ids: Tensor, last_index: Tensor, attention_mask: Tensor | None = None) -> PooledOutput:
        """Rewards at `last_index [batch]` (the end-of-turn token) of right-padded rows `[batch, seq]`."""
        states = self.backbone_states(input_ids, attention_mask)
        pooled = states[torch.arange(len(states), device=states.device), last_index]
        features = self.features(pooled)
        return PooledOutput(rewards=self.reward_of(features), hidden_states=states, features=features)


class SARM(RewardModel):
    """Reward linear in the SAE's latents of the scored token. Source: Eq. 9.

    `latents` says whether the head sees TopK latents or all pre-activations; `edits` steer the latents.
    Deviation: computed at the scored token alone, where the released code computes every position and picks one.
    """

    def __init__(self, backbone: PreTrainedModel, sae: TopKSAE, *, latents: Literal["topk", "pre_acts"] = "topk") -> None:
        super().__init__(backbone, linear_head(sae.n_latents))
        self.sae = sae
        self.latents = latents
        self.edits: Mapping[int, Edit] = {}

    def features(self, pooled: Tensor) -> Tensor:
        """Latents `[..., n_latents]` after steering."""
        x = self.sae.prepare(pooled)
        latents = self.sae.encode(x).latents if self.latents == "topk" else self.sae.pre_acts(x)
        return steer(latents, self.edits) if self.edits else latents


class LinearEncoderRewardModel(RewardModel):
    """The authors' random-init control: a trainable linear layer with bias on raw hidden states, no standardisation, no TopK.

    Algebraically a truncated scalar model. Source: `LlamaBaseline`, sarm_llama.py:463-555.
    """

    def __init__(self, backbone: PreTrainedModel, *, hidden_size: int, n_latents: int) -> None:
        super().__init__(backbone, linear_head(n_latents))
        self.untrained_sae_encoder = nn.Linear(hidden_size, n_latents)

    def features(self, pooled: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[..., n_latents]`."""
        return self.untrained_sae_encoder(pooled)


class DenseRewardModel(RewardModel):
    """A scalar head on the final-normed hidden state: what `AutoModelForSequenceClassification` computes on the same blocks."""

    def __init__(self, backbone: PreTrainedModel, *, hidden_size: int) -> None:
        super().__init__(backbone, linear_head(hidden_size))

    def features(self, pooled: Tensor) -> Tensor:
        """The hidden state itself."""
        return pooled
