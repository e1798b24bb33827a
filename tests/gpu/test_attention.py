"""Attention over packed rows in every layout and every way that a device has, against attention written out in float64 on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("pydantic", reason="the package pydantic is not installed")
pytest.importorskip("transformers", reason="the package transformers is not installed")

from pairs_of_ids import SIZES, pairs, rewards_alone
from tiny import causal_lm
from transformers import LlamaConfig

from sarm.backbone import packed_tokens, varlen
from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.harvest import Harvest
from sarm.backbone.packed_tokens import attention, packed
from sarm.data.sentences import TextSequence
from sarm.reward.models import SARM
from sarm.reward.shared_prefix import pack
from sarm.sae.model import TopKSAE

SCALE = 0.3
# Tokens of each sequence, and how many of them are the beginning of the one before it.
LAYOUTS: dict[str, list[tuple[int, int]]] = {
    "runs of one length": [(3, 0), (3, 0), (3, 0), (7, 0), (7, 0)],
    "one token each": [(1, 0), (1, 0), (1, 0)],
    "pairs that share a prompt": [(9, 0), (12, 6), (5, 0), (6, 2), (8, 0), (8, 7), (4, 0), (3, 1)],
    "long and few": [(140, 0), (200, 90)],
    "mixed": [(3, 0), (3, 0), (5, 0), (6, 2), (1, 0), (2, 0), (4, 1), (3, 0)],
}
# Of operands that are rounded beforehand: what sums and scores are held in.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
WAYS = ["as installed", "repeated", "without a kernel"]


def written_out(query: Tensor, key: Tensor, value: Tensor, layout: list[tuple[int, int]], *, ends: bool) -> Tensor:
    """Each sequence with the keys and values that it sees, heads repeated, in the operands' precision."""
    out, start, before = [], 0, 0
    for number, (length, shared) in enumerate(layout):
        own = length - shared
        seen = [*range(before, before + shared), *range(start, start + own)]
        rows = query[number : number + 1] if ends else query[start : start + own]
        k, v = (one[seen].repeat_interleave(query.shape[1] // key.shape[1], dim=1) for one in (key, value))
        scores = torch.einsum("qhd,khd->hqk", rows, k) * SCALE
        hidden = torch.ones(len(rows), len(seen), dtype=torch.bool, device=scores.device).triu(len(seen) - len(rows) + 1)
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(dim=-1), v))
        start, before = start + own, start
    return torch.cat(out)


def apart(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found.double().cpu() - exact).norm() / exact.norm())


def take(way: str, device: torch.device, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are then packed for this way; skips where the device has another one alone."""
    form = varlen.form_for(device, dtype)
    if way == "repeated" and form not in ("grouped", "repeated"):
        pytest.skip(f"{device.type} in {dtype} has no kernel that takes repeated heads: {varlen.WAYS[form]}")
    if way != "as installed":
        monkeypatch.setattr(packed_tokens, "form_for", lambda device, dtype: "repeated" if way == "repeated" else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("ends", [False, True], ids=["every token", "last tokens"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_attention_equals_float64_in_value_and_gradient(
    device: torch.device, *, monkeypatch: pytest.MonkeyPatch, layout: list[tuple[int, int]], ends: bool, dtype: torch.dtype, way: str
) -> None:
    take(way, device, dtype, monkeypatch)
    sequences = [[0] * length for length, _ in layout]
    row = packed(sequences, [shared for _, shared in layout], [[length - 1] for length, _ in layout], device=device, dtype=dtype)
    draw = torch.Generator().manual_seed(len(layout))
    tokens = len(row.input_ids)
    sizes = [(len(layout) if ends else tokens, 4, 16), (tokens, 2, 16), (tokens, 2, 16)]
    rounded = [torch.randn(size, generator=draw).to(dtype) for size in sizes]
    ours, exact = ([one.to(place, kind).requires_grad_() for one in rounded] for place, kind in ((device, dtype), ("cpu", torch.float64)))
    found = attention(*ours, row, ends=ends, scale=SCALE)
    expected = written_out(*exact, layout, ends=ends)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    assert apart(found.detach(), expected.detach()) < TOLERANCES[dtype]
    gradients = torch.autograd.grad((found * weights.to(device, dtype)).sum(), ours)
    for name, one, other in zip(("query", "key", "value"), gradients, torch.autograd.grad((expected * weights).sum(), exact), strict=True):
        # A sequence of one token sees one key, so that its query and key have no gradient.
        if float(other.norm()):
            assert apart(one, other) < 2 * TOLERANCES[dtype], name
        else:
            assert float(one.abs().max()) < TOLERANCES[dtype], name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_harvested_states_are_those_of_the_whole_model_in_float32(device: torch.device, dtype: torch.dtype) -> None:
    config = LlamaConfig(**SIZES)
    full = causal_lm(config).eval()
    cut = truncated_backbone(config, 2).eval()
    cut.load_state_dict({key: value for key, value in full.model.state_dict().items() if key in cut.state_dict()})
    draw = torch.Generator().manual_seed(0)
    text = []
    for number, length in enumerate([5, 9, 5, 1, 12, 9, 3]):
        text.append(TextSequence(torch.randint(1, 60, (length,), generator=draw).tolist(), sorted({0, length - 1}), number))
    found = Harvest(cut.to(device=device, dtype=dtype), [2], batch_tokens=4096, device=device).states(text)[2]
    with torch.no_grad():
        states = [full(input_ids=torch.tensor([one.ids]), output_hidden_states=True).hidden_states[2][0, one.kept] for one in text]
    assert apart(found, torch.cat(states).double()) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_rewards_of_packed_pairs_are_those_of_conversations_alone_in_float32(device: torch.device, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # All latents are kept, so that rounding cannot change which.
    model = SARM(truncated_backbone(LlamaConfig(**SIZES), 2), TopKSAE(hidden_size=32, n_latents=64, k=64)).eval()
    model.sae.reset(torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.score.weight)
    made = pairs()
    with torch.no_grad():
        alone = rewards_alone(model, [pair.chosen for pair in made] + [pair.rejected for pair in made])  # type: ignore[arg-type]
        model.to(device=device, dtype=dtype)
        rewards, _ = model.packed_rewards(pack(made, dtype=dtype, device=device))
    assert apart(torch.cat([rewards[0::2], rewards[1::2]]), alone.double()) < 2 * TOLERANCES[dtype]
