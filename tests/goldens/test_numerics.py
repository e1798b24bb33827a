"""Stand-alone numeric examples of the released functions: standardization, TopK, normalised MSE."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from golden_files import close, each, tensors
from torch import Tensor

from sarm.sae.model import masked_row_mean, normalized_mse, standardize, topk

Numbers = dict[str, Tensor]
STANDARDIZED = re.compile(r"(?P<prefix>pre|pre_bf16|pre_fp16)_(?P<part>out|mean|std)")
# What is given, not computed.
INPUTS = {
    *("pre_in", "pre_bf16_in", "pre_fp16_in", "topk_in", "topk_k"),
    *("nmse_x", "nmse_xhat", "nmse_mask", "nmse_mask_short"),
}


def half(ours: Tensor, theirs: Tensor) -> None:
    """2 units in the last place of a half-precision type."""
    step = torch.finfo(theirs.dtype).eps
    torch.testing.assert_close(ours, theirs, rtol=2 * step, atol=0.0)


def check_standardized(n: Numbers, name: str) -> None:
    """Values, mean and standard deviation, in the precision of the input."""
    match = STANDARDIZED.fullmatch(name)
    assert match, f"nothing here computes the golden tensor {name!r}"
    given, theirs = n[f"{match['prefix']}_in"], n[name]
    result = standardize(given)
    ours = {"out": result.values, "mean": result.mean, "std": result.std}[match["part"]]
    if theirs.dtype != torch.float32:
        half(ours, theirs)
        return
    assert ours.shape == theirs.shape
    allowed = 1e-5 * theirs.abs() + 1e-6
    if match["part"] == "out":
        # Where a row is constant the mean's last digit is divided by next to nothing: the value is rounding in theirs and in ours.
        rounding = torch.finfo(torch.float32).eps * given.abs().amax(dim=-1, keepdim=True)
        allowed = allowed + 4 * rounding / (n[f"{match['prefix']}_std"] + 1e-6)
    assert bool(((ours - theirs).abs() <= allowed).all())


def released_count(mask: Tensor) -> Tensor:
    """The released code's count of a mask: cast to bfloat16 before it is summed, so rounded to 8 bits."""
    return mask.to(torch.bfloat16).sum(dim=-1).float()


def check_rounded_count(n: Numbers, name: str) -> None:
    """The rounding of the count is all that parts the released masked mean from ours, row by row.

    Whether the two then differ depends on the masks: over rows the roundings can cancel.
    """
    errors = normalized_mse(n["nmse_xhat"], n["nmse_x"])
    rows = zip(errors.split(1), n["nmse_mask"].split(1), strict=True)
    ours = torch.stack([masked_row_mean(row, mask) for row, mask in rows])
    released = ours * n["nmse_mask"].sum(dim=-1) / released_count(n["nmse_mask"])
    close(released.mean()[None], n[name])
    close(ours.mean(), masked_row_mean(errors, n["nmse_mask"]))


def check_rounded_count_in_half(n: Numbers, name: str) -> None:
    """All of it in bfloat16: the released steps give the released number, ours lie within those roundings."""
    low, mask = normalized_mse(n["nmse_xhat"].bfloat16(), n["nmse_x"].bfloat16()), n["nmse_mask"].bfloat16()
    half(((low * mask).sum(dim=-1) / mask.sum(dim=-1)).mean()[None], n[name])
    torch.testing.assert_close(masked_row_mean(low, n["nmse_mask"])[None], n[name].float(), rtol=2e-2, atol=0)


def check_topk(n: Numbers, name: str) -> None:
    assert torch.equal(topk(n["topk_in"], int(n["topk_k"])), n[name])


def check_nmse(n: Numbers, name: str) -> None:
    close(normalized_mse(n["nmse_xhat"], n["nmse_x"]).mean()[None], n[name])


def check_short_mask(n: Numbers, name: str) -> None:
    close(masked_row_mean(normalized_mse(n["nmse_xhat"], n["nmse_x"]), n["nmse_mask_short"])[None], n[name])


CHECKS: dict[str, Callable[[Numbers, str], None]] = {
    "topk_out": check_topk,
    "nmse": check_nmse,
    "nmse_masked_short": check_short_mask,
    "nmse_masked": check_rounded_count,
    "nmse_masked_bf16": check_rounded_count_in_half,
}


def examples(file: str) -> list[str]:
    """Names of tensors; those of the SAE run are read in `test_sae_pretraining.py`."""
    return sorted(name for name in tensors(file) if not name.startswith("sae_") and name not in INPUTS)


@pytest.mark.parametrize("name", each("sarm/numerics.safetensors", examples))
def test_numeric_example_equals_the_released_code(name: str) -> None:
    CHECKS.get(name, check_standardized)(tensors("sarm/numerics.safetensors"), name)


@pytest.mark.parametrize("counts", [(301, 259), (300, 256), (301, 301), (1, 257), (511, 513, 3)])
def test_a_rounded_count_is_told_from_ours_whatever_the_masks(counts: tuple[int, ...]) -> None:
    # 301 rounds down and 259 up, so that over rows the two can cancel; 300 and 256 are exact.
    generator = torch.Generator().manual_seed(sum(counts))
    x = torch.randn(len(counts), max(counts), 5, generator=generator)
    x_hat = x + 0.5 * torch.randn(x.shape, generator=generator)
    mask = (torch.arange(max(counts)) < torch.tensor(counts)[:, None]).long()
    errors = normalized_mse(x_hat, x)
    released = ((errors * mask.bfloat16()).sum(dim=-1) / mask.bfloat16().sum(dim=-1)).mean()
    check_rounded_count({"nmse_x": x, "nmse_xhat": x_hat, "nmse_mask": mask, "nmse_masked": released[None]}, "nmse_masked")
