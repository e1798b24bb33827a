"""Compiled norms, rotary embedding and MLP compute what the plain ones do, in one form for rows of any length."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairs_of_ids import CPU, SIZES, pairs
from torch import Tensor, nn
from transformers import Gemma2Config, LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from sarm.backbone import compiled_parts
from sarm.backbone.compiled_parts import compile_parts
from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.harvest import Harvest
from sarm.backbone.packed_forward import packed_states
from sarm.data.sentences import TextSequence
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.shared_prefix import pack

FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is traced is run by torch itself, which takes no compiler; the name of each function, once for each time it is traced."""
    traced: list[str] = []

    @functools.cache
    def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def backend(graph: Any, example: Any) -> Any:
            traced.append(function.__name__)
            return graph.forward

        return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

    monkeypatch.setattr(compiled_parts, "_compiled", compiled)
    return traced


def backbone_of(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = truncated_backbone(config, 2)
    for name, parameter in model.named_parameters():
        # Weights of a new norm are all 1, which would hide whether they are used.
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def states_and_gradients(model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    states = packed_states(model, pack(pairs(), dtype=torch.float32, device=CPU), [2])[2]
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return states.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def compared(config: PretrainedConfig) -> None:
    model = backbone_of(config)
    plain, plain_gradients = states_and_gradients(model)
    names = list(model.state_dict())
    compile_parts(model)
    compiled, gradients = states_and_gradients(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == plain_gradients.keys() and any("norm" in name for name in gradients)
    for name, value in plain_gradients.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_states_and_gradients_are_those_of_the_plain_parts(graphs: list[str], name: str) -> None:
    compared(FAMILIES[name])
    assert {"_norm", "_gated", "rotated"} <= set(graphs)


def test_one_form_serves_rows_of_every_length(graphs: list[str]) -> None:
    model = backbone_of(FAMILIES["llama"]).eval()
    compile_parts(model)
    harvest = Harvest(model, [2], batch_tokens=64, device=CPU)

    def texts(lengths: tuple[int, ...]) -> list[TextSequence]:
        return [TextSequence([7] * length, [length - 1], number) for number, length in enumerate(lengths)]

    harvest.states(texts((3, 4, 5)))
    first = len(graphs)
    for lengths in ((2, 9, 11, 4), (6, 6), (20, 28, 7, 5, 3)):
        harvest.states(texts(lengths))
    assert len(graphs) == first, "traced again for another length"


def test_one_form_serves_padded_batches_of_every_shape(graphs: list[str]) -> None:
    model = backbone_of(FAMILIES["llama"]).eval()
    compile_parts(model)
    with torch.no_grad():
        plain = backbone_of(FAMILIES["llama"]).eval()(torch.full((2, 5), 7)).last_hidden_state
        torch.testing.assert_close(model(torch.full((2, 5), 7)).last_hidden_state, plain, rtol=1e-5, atol=1e-5)
        first = len(graphs)
        for rows, length in ((3, 4), (2, 9), (5, 11), (4, 6)):
            model(torch.full((rows, length), 7))
    assert len(graphs) == first, "traced again for another shape"


def test_the_modules_are_still_called_so_that_hooks_run(graphs: list[str]) -> None:
    model, seen = backbone_of(FAMILIES["llama"]), []
    compile_parts(model)
    block = model.get_submodule("layers.0")
    for name in ("input_layernorm", "post_attention_layernorm", "mlp"):
        block.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: seen.append(name))
    states_and_gradients(model)
    assert seen == ["input_layernorm", "post_attention_layernorm", "mlp"]


@pytest.mark.parametrize("config", [Gemma2Config(**SIZES, head_dim=8), LlamaConfig(**SIZES, hidden_act="gelu")], ids=["gemma2", "gelu"])
def test_other_blocks_are_refused(config: PretrainedConfig) -> None:
    with pytest.raises(UsageProblem, match="block = 'compiled' needs plain blocks with SiLU"):
        compile_parts(truncated_backbone(config, 2))


def test_a_compiler_that_is_missing_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class BackendCompilerFailed(RuntimeError):
        """As torch has it."""

    BackendCompilerFailed.__module__ = "torch._dynamo.exc"

    def fail(*given: Any) -> Tensor:
        raise BackendCompilerFailed("no working C++ compiler found\nmore")

    model = backbone_of(FAMILIES["llama"])
    compile_parts(model)
    monkeypatch.setattr(compiled_parts, "_compiled", lambda function: fail)
    with pytest.raises(EnvironmentProblem, match=r"cannot be compiled here \(no working C\+\+ compiler found\); it needs g\+\+ on a CPU"):
        states_and_gradients(model)


@pytest.mark.slow
def test_what_torch_compiles_for_this_machine_computes_the_same() -> None:
    compared(FAMILIES["llama"])
