"""Tensors that other people's files hold beside those that a model has: which are harmless, of all layouts in one list.

A tensor that nothing reads may still change what a model computes: a bias that the config does not name, a scale, an adapter. So each is
refused by name, unless it stands here, in a layout for which it was looked up, and its values are those at which it does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sarm.checkpoints.tensors import TensorSource
from sarm.job import UsageProblem

# A decoder with or without a head, SARM and other reward models too; or the layout of an SAE.
Layout = Literal["decoder", "SAELens", "sparsify", "dictionary_learning", "Llama Scope", "Gemma Scope"]


class Known(NamedTuple):
    """What is known beside the tensors: the width of a model's states (0: unknown), its rotary frequencies, the class of an SAE."""

    hidden_size: int = 0
    inv_freq: Tensor | None = None
    kind: str = ""


class Leftover(NamedTuple):
    """A kind of tensor that may be left out: its name, in which layouts, where it is harmless, and the same in words."""

    name: re.Pattern[str]
    layouts: tuple[Layout, ...]
    harmless: Callable[[Tensor, Known], bool]
    only: str


def _computed(tensor: Tensor, known: Known) -> bool:
    if known.inv_freq is None or tensor.shape != known.inv_freq.shape or not tensor.is_floating_point():
        return False
    # As exact as the coarser of the two can be, which below its smallest normal number has the same step everywhere.
    kinds = [torch.finfo(one.dtype) for one in (tensor, known.inv_freq)]
    step, least = 4 * max(kind.eps for kind in kinds), max(kind.smallest_normal * kind.eps for kind in kinds)
    return torch.allclose(tensor.double(), known.inv_freq.double().cpu(), rtol=step, atol=least)


def _reads_states(tensor: Tensor, known: Known) -> bool:
    return tensor.ndim == 2 and known.hidden_size in (0, tensor.shape[1])


def _ones(tensor: Tensor, _: Known) -> bool:
    return tensor.is_floating_point() and torch.allclose(tensor, torch.ones_like(tensor))


def _counts(tensor: Tensor, _: Known) -> bool:
    return not tensor.dtype.is_floating_point and tensor.ndim <= 1 and bool((tensor >= 0).all())


def _unused_threshold(tensor: Tensor, known: Known) -> bool:
    return known.kind == "AutoEncoderTopK" and tensor.numel() == 1


LEFTOVERS: tuple[Leftover, ...] = (
    # Kept in files by transformers before 4.32; computed from the config ever since.
    Leftover(
        re.compile(r"(model\.)?(language_model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
        ("decoder",),
        _computed,
        "its frequencies are those that config.json gives",
    ),
    # The language-model head, tied or not: neither hidden states nor a reward read it.
    Leftover(re.compile(r"lm_head\.weight"), ("decoder",), _reads_states, "it is a matrix on the model's states"),
    Leftover(re.compile(r".+\.num_batches_tracked"), ("decoder",), _counts, "it counts batches"),
    # Scales latents on decoding. SAELens wrote it into every file for a while in 2024, and drops it on load where it is all ones.
    Leftover(re.compile(r"(finetuning_)?scaling_factor"), ("SAELens", "Gemma Scope"), _ones, "all its values are 1"),
    # Of training: how many latents each group has, and the k of classes that encode by a threshold.
    Leftover(re.compile(r"group_sizes|k"), ("dictionary_learning",), _counts, "it holds whole numbers"),
    # AutoEncoderTopK keeps one and does not use it on encoding.
    Leftover(re.compile(r"threshold"), ("dictionary_learning",), _unused_threshold, "it is a single number of an AutoEncoderTopK"),
)


def known_of(backbone: nn.Module) -> Known:
    """What a decoder that is whole says about leftovers of its files."""
    rotary = getattr(getattr(backbone, "rotary_emb", None), "inv_freq", None)
    return Known(hidden_size=int(getattr(backbone.config, "hidden_size", 0)), inv_freq=rotary if isinstance(rotary, Tensor) else None)


def refuse_unknown(
    source: TensorSource, left: Iterable[str], *, layout: Layout, what: str, meaning: str, known: Known | None = None
) -> None:
    """Raises UsageProblem that names the first of the tensors `left` which is not known to be harmless; `meaning` says what to think.

    Values are read of those alone whose name is known.
    """
    names = sorted(left)
    rules = {name: next((one for one in LEFTOVERS if layout in one.layouts and one.name.fullmatch(name)), None) for name in names}
    unknown = [name for name in names if rules[name] is None]
    if unknown:
        raise UsageProblem(f"{what}: unknown tensor {unknown[0]!r} ({len(unknown)} in all); {meaning}")
    for name, rule in rules.items():
        if rule is not None and not rule.harmless(source.tensor(name), known or Known()):
            raise UsageProblem(f"{what}: tensor {name!r} can be left out only where {rule.only}, and here that is not so; {meaning}")
