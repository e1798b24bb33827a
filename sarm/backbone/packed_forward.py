"""Forward pass of a decoder over packed tokens, in its last block only for the tokens whose hidden states are wanted.

Of the other tokens that block needs keys and values alone. Exact: the same products as the model's own forward, on fewer rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import rotate_half

from sarm.backbone.packed_tokens import Packed, attention

# Families whose block is: norm, attention (rotary, grouped heads), add; norm, gated MLP, add. Nothing scaled, capped or windowed.
PLAIN_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def has_windows(backbone: nn.Module) -> bool:
    """Whether some block attends to the latest tokens alone."""
    kinds = getattr(backbone.config, "layer_types", None)
    if kinds is None:
        return getattr(backbone.config, "sliding_window", None) is not None
    return any("sliding" in str(kind) for kind in kinds)


def can_pack(backbone: nn.Module) -> bool:
    """Whether the forward pass below is the model's own: the rule for all who pack."""
    config: Any = backbone.config
    if config.model_type not in PLAIN_FAMILIES or has_windows(backbone):
        return False
    return not getattr(config, "attention_dropout", 0.0) and config.rope_parameters.get("partial_rotary_factor", 1.0) == 1.0


def packed_states(backbone: nn.Module, row: Packed, layers: Sequence[int]) -> dict[int, Tensor]:
    """Residual stream after the named blocks (0 = embeddings) at the kept tokens, each `[kept, hidden_size]`.

    Blocks beyond the deepest are not run; the final norm is not applied. Activation checkpointing as the blocks are set.
    """
    blocks = list(backbone.get_submodule("layers").children())
    deepest = max(layers)
    if not 0 <= min(layers) <= deepest <= len(blocks):
        wrong = next(layer for layer in layers if not 0 <= layer <= len(blocks))
        raise ValueError(f"layer {wrong} does not exist: the model was cut to {len(blocks)} blocks")
    states: Tensor = backbone.get_submodule("embed_tokens")(row.input_ids)
    cos, sin = backbone.get_submodule("rotary_emb")(states[None], position_ids=row.position_ids[None])
    rotary = (cos[0], sin[0])
    found = {0: states[row.kept]} if 0 in layers else {}
    whole = len(row.kept) == len(row.input_ids)
    for number, block in enumerate(blocks[:deepest], start=1):
        one = partial(_block, block, row=row, rotary=rotary)
        if number in layers and not whole:
            # Also before the deepest block, so that a layer's states are the same bits whatever other layers are wanted.
            found[number] = _checkpointed(block, partial(one, kept_only=True), states)
        if number < deepest or whole:
            states = _checkpointed(block, partial(one, kept_only=False), states)
            if number in layers and whole:
                found[number] = states
    return found


def _checkpointed(block: nn.Module, run: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    if getattr(block, "gradient_checkpointing", False) and block.training:
        recomputed: Tensor = checkpoint(run, states, use_reentrant=False)
        return recomputed
    return run(states)


def _block(block: Any, states: Tensor, *, row: Packed, rotary: tuple[Tensor, Tensor], kept_only: bool) -> Tensor:
    """One decoder block: `[tokens, hidden_size]` to the same, or with `kept_only` to `[kept, hidden_size]`.

    An attention with a `rotate` of its own (`sarm.backbone.compiled_parts`) rotates by that.
    """
    attend = block.self_attn
    normed = block.input_layernorm(states)
    heads = (-1, attend.head_dim)
    key, value = attend.k_proj(normed).unflatten(-1, heads), attend.v_proj(normed).unflatten(-1, heads)
    ends = kept_only and row.ends_only
    query = attend.q_proj(normed[row.kept] if ends else normed).unflatten(-1, heads)
    if hasattr(attend, "q_norm"):
        query, key = attend.q_norm(query), attend.k_norm(key)
    cos, sin = rotary
    rotate = getattr(attend, "rotate", rotated)
    query = rotate(query, cos[row.kept], sin[row.kept]) if ends else rotate(query, cos, sin)
    key = rotate(key, cos, sin)
    mixed = attention(query, key, value, row, ends=ends, scale=attend.scaling)
    if kept_only:
        states = states[row.kept]
        mixed = mixed if ends else mixed[row.kept]
    states = states + attend.o_proj(mixed.flatten(-2))
    return states + block.mlp(block.post_attention_layernorm(states))


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `[tokens, heads, head_dim]` at the positions of `cos` and `sin` `[tokens, head_dim]`."""
    return states * cos[:, None] + rotate_half(states) * sin[:, None]
