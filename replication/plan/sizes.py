"""Sizes of Llama backbones and SAEs: parameters, floating-point operations, bytes. Arithmetic on shapes, without torch.

Multiply-accumulates count as two FLOPs. Source: `reward-training.md` section 4 and `sae-training.md` section 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from replication.settings.profiles import Shape

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9
# A norm computes in float32, whatever the weights' precision.
WIDE = 4
# Hidden states in float32 that the backward pass of one norm holds at once: the gradient that comes in, of the scale, of the square, their
# sum. Counted with the allocator's own record of our step on the CPU (4.6 in float32, 4.9 in bfloat16).
BACKWARD_HIDDEN_STATES = 5


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


def attention_width(shape: Shape) -> int:
    """Width of all query heads."""
    return shape.num_attention_heads * (shape.head_dim or shape.hidden_size // shape.num_attention_heads)


def key_width(shape: Shape) -> int:
    """Width of all key heads; values have the same."""
    return attention_width(shape) // shape.num_attention_heads * shape.num_key_value_heads


def norm_bytes(shape: Shape, *, width: int) -> float:
    """What a norm keeps of a token for its backward pass: its input in float32, the scaled one and its output."""
    return shape.hidden_size * (WIDE + 2 * width)


def block_bytes(shape: Shape, *, width: int) -> float:
    """What one block keeps of a token for its backward pass; `width` is the bytes of a value.

    Two norms; query, attended values, and keys and values once for every query head, as kernels without grouped heads want them; gate,
    its activation, up and their product.
    """
    return 2 * norm_bytes(shape, width=width) + width * (4 * attention_width(shape) + 4 * shape.intermediate_size)


def kept_bytes(shape: Shape, *, layers: int, width: int, checkpointed: bool, trimmed: bool = False) -> float:
    """Bytes that a forward pass keeps of one token for the backward pass.

    Checkpointed blocks keep their inputs alone, and the values of the one that is recomputed. Of a `trimmed` last block every token needs
    keys and values alone.
    """
    block = block_bytes(shape, width=width)
    if checkpointed:
        return layers * width * shape.hidden_size + block
    last = norm_bytes(shape, width=width) + width * 2 * attention_width(shape)
    return (layers - 1) * block + last if trimmed else layers * block


def backward_bytes(shape: Shape) -> float:
    """Bytes of one token that the backward pass holds at once beside what was kept."""
    return WIDE * BACKWARD_HIDDEN_STATES * shape.hidden_size


def packed_live_bytes(shape: Shape, *, width: int) -> float:
    """Bytes of one token that our forward pass over packed rows holds at once, in a block's MLP: what the block's frame still names.

    Its input, the first norm's output, query, key, value, attended values, the sum after attention, the second norm's output; gate, up,
    product. Source: sarm/backbone/packed_forward.py.
    """
    names = 4 * shape.hidden_size + 2 * attention_width(shape) + 2 * key_width(shape)
    return width * (names + 3 * shape.intermediate_size)


def live_bytes(shape: Shape, *, width: int) -> float:
    """Bytes of one token that a model's own forward pass holds at once.

    In the MLP: the block's input, the sum after attention, the norm's output, gate, up, product. Or in attention: the block's input, the
    norm's output, query, keys and values before and after they are repeated, attended values.
    """
    mlp = 3 * shape.hidden_size + 3 * shape.intermediate_size
    attention = 2 * shape.hidden_size + 4 * attention_width(shape) + 2 * key_width(shape)
    return width * max(mlp, attention)
