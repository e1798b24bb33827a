"""Attention over packed sequences by one call of torch's own kernel, in every form in which a release of torch has it.

torch 2.10 brought it without a scale, 2.11 added scale and windows, 2.12 grouped heads; before 2.10 there is none.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

# "grouped": key heads are shared by query heads; "repeated": they are repeated first; "unscaled": that, and the scale goes into the query.
Form = Literal["grouped", "repeated", "unscaled"]
WAYS: dict[Form | None, str] = {
    "grouped": "one kernel, grouped heads",
    "repeated": "one kernel, repeated heads",
    "unscaled": "one kernel, repeated heads, scale in the query",
    None: "a call for each run of one length",
}
# What the kernel (Flash Attention) takes, and the first cards that have it.
DTYPES = (torch.bfloat16, torch.float16)
OLDEST_CARD = (8, 0)


class Bounds(NamedTuple):
    """Where the sequences of a row begin and end, made once for all blocks.

    `queries`, `ends` and `keys` `[sequences + 1]` are int32: borders of queries, of queries where each sequence has its last token alone,
    and of keys. `gather [keys]` says which token each key is, None where they are the tokens in order.
    """

    form: Form
    queries: Tensor
    ends: Tensor
    keys: Tensor
    gather: Tensor | None
    longest_query: int
    longest_key: int


def form_for(device: torch.device, dtype: torch.dtype) -> Form | None:
    """How the installed torch's kernel is called on this device for tensors of this type; None where there is none that takes them."""
    if device.type != "cuda" or dtype not in DTYPES or torch.cuda.get_device_capability(device) < OLDEST_CARD:
        return None
    return installed_form()


def installed_form() -> Form | None:
    """How the installed torch's kernel is called; None where there is none, or none that is known here."""
    kernel = _kernel()
    if kernel is None:
        return None
    names = set(inspect.signature(kernel).parameters)
    if {"scale", "window_size"} <= names:
        return "grouped" if "enable_gqa" in names else "repeated"
    return "unscaled" if "is_causal" in names else None


def _kernel() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - not every torch has it
    except ImportError:
        return None
    return varlen_attn


def numbers_of_keys(own: Tensor, shared: Tensor) -> Tensor:
    """Which packed token each key is: for every sequence the beginning of the one before it that it sees, then its own tokens.

    `own` and `shared` `[sequences]` count a sequence's tokens and those that it sees of the one before.
    """
    lengths = own + shared
    starts = own.cumsum(0) - own
    previous = torch.cat([starts[:1], starts[:-1]])
    place = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    skip = shared.repeat_interleave(lengths)
    return torch.where(place < skip, previous.repeat_interleave(lengths) + place, starts.repeat_interleave(lengths) + place - skip)


def borders(lengths: Tensor) -> Tensor:
    """`[sequences]` to `[sequences + 1]`: 0, and the sums so far."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def repeated_heads(tensor: Tensor, heads: int, *, dim: int) -> Tensor:
    """Key or value heads, each as often as query heads share it."""
    return tensor if tensor.shape[dim] == heads else tensor.repeat_interleave(heads // tensor.shape[dim], dim=dim)


def by_one_kernel(query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, *, ends: bool, scale: float) -> Tensor:
    """As `sarm.backbone.packed_tokens.attention`. Causal masks of the kernel end at the bottom right.

    Raises RuntimeError where torch has no such kernel, which `form_for` tells beforehand.
    """
    kernel = _kernel()
    if kernel is None:
        raise RuntimeError(f"torch {torch.__version__} has no kernel for packed sequences; torch 2.10 brought it")
    if bounds.gather is not None:
        key, value = key[bounds.gather], value[bounds.gather]
    options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0), "enable_gqa": True}
    if bounds.form != "grouped":
        del options["enable_gqa"]
        key, value = (repeated_heads(one, query.shape[1], dim=1) for one in (key, value))
    if bounds.form == "unscaled":
        query, options = query * (scale * math.sqrt(query.shape[-1])), {"is_causal": True}
    borders_of_queries, longest = (bounds.ends, 1) if ends else (bounds.queries, bounds.longest_query)
    out = kernel(query, key, value, borders_of_queries, bounds.keys, longest, bounds.longest_key, **options)
    return out if isinstance(out, Tensor) else out[0]
