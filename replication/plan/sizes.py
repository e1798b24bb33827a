"""Sizes of Llama backbones and SAEs: parameters, floating-point operations, bytes. Arithmetic on shapes, without torch.

Multiply-accumulates count as two FLOPs. Source: `reward-training.md` section 4 and `sae-training.md` section 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from replication.settings.profiles import Shape

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9
# Values that one block keeps for its backward pass, besides the MLP's three: both norms (their input in float32 and their output),
# query, key, value, attention and its projection, counted as multiples of the hidden size.
KEPT_HIDDEN_STATES = 12
# What a forward pass alone holds at once: the residual stream, a norm, an attention output, a result.
LIVE_HIDDEN_STATES = 4


def layer_parameters(shape: Shape) -> int:
    """Matrix weights of one Llama block."""
    head = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    attention = 2 * shape.hidden_size * head * (shape.num_attention_heads + shape.num_key_value_heads)
    return attention + 3 * shape.hidden_size * shape.intermediate_size


def truncated_parameters(shape: Shape, layers: int) -> int:
    """Weights of the first blocks and the embedding."""
    return layers * layer_parameters(shape) + shape.vocab_size * shape.hidden_size


def forward_flops(shape: Shape, *, layers: int, length: int) -> float:
    """FLOPs of one token through the first blocks; attention over half of `length` tokens on average."""
    head = shape.head_dim or shape.hidden_size // shape.num_attention_heads
    attention = 4 * (length / 2) * shape.num_attention_heads * head
    return layers * (2 * layer_parameters(shape) + attention)


def kept_bytes(shape: Shape, *, layers: int, width: int, checkpointed: bool) -> float:
    """Bytes that a forward pass keeps of one token for the backward pass; `width` is the bytes of a value.

    Checkpointed blocks keep their inputs alone, and the values of the one that is recomputed.
    """
    block = width * (3 * shape.intermediate_size + KEPT_HIDDEN_STATES * shape.hidden_size)
    return layers * width * shape.hidden_size + block if checkpointed else layers * block


def live_bytes(shape: Shape, *, width: int) -> float:
    """Bytes that a forward pass without a backward pass holds of one token at once."""
    return width * (2 * shape.intermediate_size + LIVE_HIDDEN_STATES * shape.hidden_size)
