"""A decoder cut after a block, and the reward models that stand on it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from sarm.packed_forward import packed_states
from sarm.packed_tokens import Packed
from sarm.sae import TopKSAE
from sarm.steering import Edit, steer


class UnappliedNorm(nn.Module):
    """The final norm's weight, kept for the checkpoint and never applied. Source: sarm_llama.py:165."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.get_parameter("weight").detach().clone(), requires_grad=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The input, unchanged."""
        return hidden_states


class PooledOutput(NamedTuple):
    """What a reward model computes at the scored token: reward `[batch]`, hidden states `[batch, hidden_size]`, features or None."""

    rewards: Tensor
    hidden_states: Tensor
    features: Tensor | None


def truncated_config(config: PretrainedConfig, layer: int) -> PretrainedConfig:
    """The configuration of the first `layer` blocks. Raises ValueError for a layer beyond the model."""
    text = config.get_text_config()
    if not 1 <= layer <= text.num_hidden_layers:
        count = text.num_hidden_layers
        raise ValueError(f"layer {layer} does not exist: the model has {count} blocks; choose 1 to {count}")
    cut = copy.deepcopy(text)
    cut.num_hidden_layers = layer
    if getattr(cut, "layer_types", None):
        cut.layer_types = list(cut.layer_types)[:layer]
    cut.use_cache = False
    return cut


def truncated_backbone(
    config: PretrainedConfig, layer: int, *, keep_final_norm: bool = False, attention: str = "sdpa"
) -> PreTrainedModel:
    """A base model of `layer` blocks whose output is the residual stream after the last one.

    Works for any Hugging Face decoder whose blocks are a list `layers` and whose final norm is `norm` (Llama, Gemma 2, Qwen).
    With `keep_final_norm` the norm is applied, as sequence classifiers of transformers do. Weights are random.
    Gemma 2 caps its attention scores, which only `eager` attention can do, so there `sdpa` means `eager`.
    """
    cut = truncated_config(config, layer)
    if attention == "sdpa" and getattr(cut, "attn_logit_softcapping", None):
        attention = "eager"
    model: PreTrainedModel = AutoModel.from_config(cut, attn_implementation=attention)
    if not isinstance(getattr(model, "layers", None), nn.ModuleList) or not hasattr(model, "norm"):
        raise ValueError(f"{type(model).__name__} has no list of blocks named 'layers' with a final 'norm'; it cannot be truncated")
    if not keep_final_norm:
        model.norm = UnappliedNorm(model.get_submodule("norm"))
    return model


def blocks_of(backbone: nn.Module) -> nn.ModuleList:
    """The decoder's blocks."""
    blocks = backbone.get_submodule("layers")
    if not isinstance(blocks, nn.ModuleList):
        raise TypeError(f"the blocks of {type(backbone).__name__} are not a list")
    return blocks


def hidden_states(backbone: nn.Module, input_ids: Tensor, layers: Sequence[int], attention_mask: Tensor | None = None) -> dict[int, Tensor]:
    """Residual stream after the named blocks (0 = embeddings as the first block sees them), each `[batch, seq, hidden_size]`.

    Blocks beyond the deepest one are not run when the backbone is cut there. Padding on the right needs no mask: attention is causal.
    """
    kept: dict[int, Tensor] = {}
    handles = []
    blocks = blocks_of(backbone)
    for layer in layers:
        if not 0 <= layer <= len(blocks):
            raise ValueError(f"layer {layer} does not exist: the model was cut to {len(blocks)} blocks")
        if layer == 0:
            handles.append(blocks[0].register_forward_pre_hook(_keeper_of_input(kept)))
        else:
            handles.append(blocks[layer - 1].register_forward_hook(_keeper_of_output(kept, layer)))
    try:
        backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _keeper_of_input(kept: dict[int, Tensor]):  # type: ignore[no-untyped-def]
    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        kept[0] = args[0]

    return keep


def _keeper_of_output(kept: dict[int, Tensor], layer: int):  # type: ignore[no-untyped-def]
    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        kept[layer] = output if isinstance(output, Tensor) else output[0]

    return keep


class RewardModel(nn.Module):
    """A truncated decoder with something that turns the scored token's hidden state into a reward.

    `model` is the backbone, `score` the linear head without bias, as in the released checkpoints.
    """

    def __init__(self, backbone: PreTrainedModel, features: int) -> None:
        super().__init__()
        self.model = backbone
        self.score = nn.Linear(features, 1, bias=False)

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
        """Rewards of pairs that share a row (`sarm.shared_prefix`): all chosen, then all rejected, `[2 pairs]`."""
        states = self.model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        pooled = torch.cat([states[rows, chosen_index], states[rows, rejected_index]])
        return self.reward_of(self.features(pooled))

    def packed_rewards(self, row: Packed) -> tuple[Tensor, Tensor]:
        """Rewards `[kept]` and hidden states `[kept, hidden_size]` at the kept tokens of packed conversations.

        Only for backbones that `sarm.packed_forward.can_pack`.
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
        super().__init__(backbone, sae.n_latents)
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
        super().__init__(backbone, n_latents)
        self.untrained_sae_encoder = nn.Linear(hidden_size, n_latents)

    def features(self, pooled: Tensor) -> Tensor:
        """`[..., hidden_size]` to `[..., n_latents]`."""
        return self.untrained_sae_encoder(pooled)


class DenseRewardModel(RewardModel):
    """A scalar head on the final-normed hidden state: what `AutoModelForSequenceClassification` computes on the same blocks."""

    def __init__(self, backbone: PreTrainedModel, *, hidden_size: int) -> None:
        super().__init__(backbone, hidden_size)

    def features(self, pooled: Tensor) -> Tensor:
        """The hidden state itself."""
        return pooled
