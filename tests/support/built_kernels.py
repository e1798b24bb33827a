"""Builds each Triton kernel of the SAE step for a GPU that need not be there: `python -m built_kernels 90` prints what came out.

A build is what Triton makes of the kernel at the paper's shapes, with operands in bfloat16, for that compute capability.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sarm.sae.kernels import active_pairs, adam

WARP = 32
SUM = {"factors": "*fp32", "vectors": "*bf16", "rows": "*i32", "starts": "*i32"}
SCALARS = {name: "fp32" for name in ("decay1", "rest1", "decay2", "rest2", "rate", "correction", "epsilon")}
STEP = {**SCALARS, "seed": "i32"}
SUMMED, DECODED = ({"COLUMNS": most} for most in (active_pairs.SUM_COLUMNS, active_pairs.DECODE_COLUMNS))


def moments(kind: str) -> dict[str, str]:
    """The types of a matrix and its moments."""
    return {"parameter": "*fp32", "mean": kind, "square": kind}


KERNELS: dict[str, tuple[Any, dict[str, str], dict[str, Any], int]] = {
    "decode": (
        active_pairs._decode_kernel,
        {"values": "*bf16", "indices": "*i64", "weights": "*bf16", "out": "*fp32", "k": "i32", "hidden": "i32"},
        DECODED,
        2,
    ),
    "weight gradients": (active_pairs._weight_gradient_kernel, {**SUM, "out": "*fp32", "hidden": "i32"}, SUMMED, 4),
    "value gradients": (
        active_pairs._value_gradient_kernel,
        {"gradient": "*bf16", "weights": "*bf16", "latents": "*i32", "rows": "*i32", "order": "*i64", "out": "*fp32"}
        | {"pairs": "i32", "hidden": "i32"},
        {"PAIRS": active_pairs.PAIRS, "COLUMNS": active_pairs.PAIR_COLUMNS},
        4,
    ),
    "latent sums": (
        active_pairs._latent_sum_kernel,
        {"factors": "*fp32", "starts": "*i32", "out": "*fp32"},
        {"TILE": active_pairs.TILE},
        1,
    ),
    "update by pairs": (adam._pair_update_kernel, {**SUM, **moments("*fp32"), "hidden": "i32", **STEP}, {"SMALL": False, **SUMMED}, 4),
    "update by pairs, small": (
        adam._pair_update_kernel,
        {**SUM, **moments("*bf16"), "hidden": "i32", **STEP},
        {"SMALL": True, **SUMMED},
        4,
    ),
    "update": (adam._update_kernel, {**moments("*bf16"), "gradient": "*fp32", "size": "i32", **STEP}, {"ELEMENTS": adam.ELEMENTS}, 4),
}


def built(name: str, capability: int) -> dict[str, int]:
    """Bytes of machine code, and how many instructions read or write 16 bytes of the GPU's memory at once."""
    kernel, types, constants, warps = KERNELS[name]
    names = kernel.arg_names
    # Addresses and the paper's sizes are multiples of 16, which Triton sees at the call.
    whole = {
        (place,): [["tt.divisibility", 16]]
        for place, one in enumerate(names)
        if types.get(one, "").startswith("*") or one in ("hidden", "size")
    }
    signature = {one: "constexpr" if one in constants else types[one] for one in names}
    source = ASTSource(
        fn=kernel, signature=signature, constexprs={(names.index(one),): value for one, value in constants.items()}, attrs=whole
    )
    options = {"num_warps": warps, **active_pairs.UNFUSED}
    made = triton.compile(source, target=GPUTarget("cuda", capability, WARP), options=options)
    return {"bytes": len(made.asm["cubin"]), "wide_loads": len(re.findall(r"(?:ld|st)\.global[\w.:]*\.v4\.b32", made.asm["ptx"]))}


if __name__ == "__main__":
    print(json.dumps({name: built(name, int(sys.argv[1])) for name in KERNELS}))
