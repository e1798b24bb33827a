"""Weights that were saved quantised, in any of the usual ways: told apart from floats, and refused.

Of such a file the numbers alone are read here, without the scales that belong to them: a model made of them gives rewards, and all are
wrong. A name or a setting tells why; a tensor's type decides, so that no integer and no float8 ever becomes a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sarm.job import UsageProblem

# What values of a model may be on disk. Anything else needs scales, or is no number at all.
FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
SETTINGS = ("quantization_config", "compression_config")
# Parts of a model's config that are a config themselves: ours, and those of models that see.
NESTED = ("backbone", "text_config")
# How tensors are called that exist in quantised files alone: the end of a name -> by what they were made.
MARKS: Mapping[str, re.Pattern[str]] = {
    "FP8": re.compile(r".+\.(weight_scale|weight_scale_inv|weight_scale_2|input_scale|output_scale|activation_scale|[kv]_scale)"),
    "int8 of bitsandbytes": re.compile(r".+\.(SCB|weight_format)"),
    "4-bit of bitsandbytes": re.compile(r".+\.(quant_state(\..+)?|absmax|quant_map|nested_absmax|nested_quant_map)"),
    "GPTQ or AWQ": re.compile(r".+\.(qweight|qzeros|scales|g_idx)"),
    "compressed-tensors": re.compile(r".+\.(weight_packed|weight_zero_point|weight_shape|weight_g_idx)"),
    "quanto, HQQ, EETQ or AQLM": re.compile(r".+\.(_data|_scale|W_q|weight_scales|codes|codebooks)"),
}
CURE = "save the model dequantised, in bfloat16 or float32, and give that folder"


def refuse_quantized_settings(raw: Mapping[str, Any], where: str) -> None:
    """Raises UsageProblem that names the key where a config says that the weights are quantised; an empty value says nothing."""
    nested = {f"{name}.": raw[name] for name in NESTED if isinstance(raw.get(name), Mapping)}
    for inside, settings in {"": raw, **nested}.items():
        for key in SETTINGS:
            said = settings.get(key)
            if said:
                method = said.get("quant_method") if isinstance(said, Mapping) else None
                how = f" ({method})" if method else ""
                raise UsageProblem(f"{where}: {inside}{key} says that the weights are quantised{how}, which is not undone here; {CURE}")


def refuse_quantized_names(names: Iterable[str], where: Callable[[str], str]) -> None:
    """Raises UsageProblem that names a tensor which only a quantised file has; `where` says of a tensor in which file it stands."""
    for name in sorted(names):
        how = next((how for how, mark in MARKS.items() if mark.fullmatch(name)), None)
        if how:
            raise UsageProblem(f"{where(name)}: tensor {name!r} is of quantised weights ({how}), which are not dequantised here; {CURE}")


def refuse_other_numbers(tensor: Tensor, *, name: str, where: str, wanted: torch.dtype = torch.float32) -> None:
    """Raises UsageProblem for a tensor whose values cannot become `wanted` as they are: float8, integers and bits are no floats.

    A tensor that is wanted as a whole number, as a counter is, must be one.
    """
    if tensor.dtype in FLOATS if wanted.is_floating_point else not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return
    found, kind = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, wanted))
    raise UsageProblem(f"{where}: tensor {name!r} holds {found} where the model has {kind}: quantised weights are not read; {CURE}")
