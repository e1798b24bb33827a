"""Norms, rotary embedding and gated MLP of a decoder's blocks, each as one kernel that torch compiles.

Between two products these read and write the same tokens many times. Results differ from the plain form in rounding: what is
between two steps of one kernel is not rounded to the tensors' precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sarm.backbone.packed_forward import can_pack, rotated
from sarm.job import EnvironmentProblem, UsageProblem


def compile_parts(backbone: nn.Module) -> None:
    """Let these parts of every block of a decoder run compiled, in place; weights and their names stay.

    Raises UsageProblem for a decoder whose blocks are not known to be plain, where other code than ours runs the blocks.
    """
    activation = getattr(backbone.config, "hidden_act", "")
    if not can_pack(backbone) or activation != "silu":
        kind = f"{getattr(backbone.config, 'model_type', type(backbone).__name__)} with {activation or 'an unknown'} activation"
        raise UsageProblem(f"block = 'compiled' needs plain blocks with SiLU (Llama, Mistral without windows, Qwen 2 and 3), not {kind}")
    # What was compiled for an earlier model of this process must not decide which form this one gets.
    torch.compiler.reset()
    for block in backbone.get_submodule("layers").children():
        attend: Any = block.get_submodule("self_attn")
        norms = [block.get_submodule(name) for name in ("input_layernorm", "post_attention_layernorm")]
        norms += [attend.get_submodule(name) for name in ("q_norm", "k_norm") if hasattr(attend, name)]
        for norm in norms:
            # The module is still called, so that an engine's hooks bring its weight first.
            norm.forward = MethodType(_norm_forward, norm)
        mlp = block.get_submodule("mlp")
        mlp.forward = MethodType(_mlp_forward, mlp)
        attend.rotate = _rotated


def _norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = states.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(states.dtype)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate) * up


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    rows = hidden_states.flatten(0, -2)
    return _run(_norm, (rows,), self.weight, self.variance_epsilon).view_as(hidden_states)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    # One size of tokens, as for the norms: a padded batch brings two, of which the second would be a form of its own each time.
    rows = x.flatten(0, -2)
    return self.down_proj(_run(_gated, (self.gate_proj(rows), self.up_proj(rows)))).unflatten(0, x.shape[:-1])


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return _run(rotated, (states, cos, sin))


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Static sizes but for those that are marked: what is compiled does not depend on which sizes came first."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def _run(function: Callable[..., Tensor], rows: tuple[Tensor, ...], *rest: Any) -> Tensor:
    """A compiled function of tensors whose first size is the number of tokens: one form for one token, one for any other number."""
    for one in rows:
        torch._dynamo.maybe_mark_dynamic(one, 0)
    try:
        return _compiled(function)(*rows, *rest)
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentProblem(
            f"block = 'compiled' cannot be compiled here ({line}); it needs g++ on a CPU, Triton and a C compiler on a GPU (see: replicate "
            "doctor); or set block = 'plain', which is another job"
        ) from error
