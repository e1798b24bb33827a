"""A decoder cut after a block, and the hidden states that it gives."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from sarm.job import UsageProblem


class UnappliedNorm(nn.Module):
    """The final norm's weight, kept for the checkpoint and never applied. Source: sarm_llama.py:165."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.get_parameter("weight").detach().clone(), requires_grad=False)
        self._kind = type(norm)

    def first_weight(self) -> Tensor:
        """What a new norm of this kind has `[hidden_size]`: ones, or zeros where 1 is added (Gemma). For a checkpoint without it."""
        return self._kind(self.weight.shape[0]).get_parameter("weight").detach()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The input, unchanged."""
        return hidden_states


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
    With `keep_final_norm` the norm is applied, as sequence classifiers of transformers do. Weights are random, or have no storage
    where the caller makes modules that way (`sarm.checkpoints.loading.without_weights`).
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


def positions_of(config: PretrainedConfig) -> int | None:
    """How many positions a decoder was made for, those that its rotary scaling adds included; None where it does not say."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    rotary = getattr(text, "rope_parameters", None)
    if positions is None or not isinstance(rotary, Mapping):
        return positions
    original, factor = rotary.get("original_max_position_embeddings"), rotary.get("factor")
    if isinstance(original, int | float) and isinstance(factor, int | float):
        return max(int(positions), int(original * factor))
    return int(positions)


def embeddings_of(backbone: PreTrainedModel) -> int:
    """How many tokens a decoder knows."""
    return len(backbone.get_input_embeddings().get_parameter("weight"))


def filler(backbone: PreTrainedModel, pad_id: int) -> int:
    """The id that fills rows on the right: the tokenizer's, or 0 where the model has no such embedding. No token attends to it."""
    return pad_id if 0 <= pad_id < embeddings_of(backbone) else 0


def require_rows(
    backbone: PreTrainedModel, rows: Iterable[Sequence[int]], names: Iterable[str], *, limit: str = "max_length"
) -> None:
    """Raises UsageProblem that names the first row which the model cannot read as it was trained; called once before rows meet a backbone.

    One longer than its positions would give a number all the same; a token beyond its embeddings is a tokenizer of another model.
    `limit` is how whoever asks calls the longest length.
    """
    known, positions = embeddings_of(backbone), positions_of(backbone.config)
    for row, name in zip(rows, names, strict=True):
        if positions is not None and len(row) > positions:
            raise UsageProblem(f"{name}: {len(row)} tokens, but the model has {positions} positions; lower {limit} to {positions}")
        if row and max(row) >= known:
            raise UsageProblem(
                f"{name}: token {max(row)}, but the model has {known} embeddings (0 to {known - 1}); its tokenizer is another model's"
            )


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
