"""Packed attention in every form that a torch offers equals attention written out; which form it is depends on torch's own signature."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pairs_of_ids import CPU, SIZES, pairs, rewards_alone
from torch import Tensor
from transformers import LlamaConfig

from sarm.backbone import packed_tokens, varlen
from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.packed_tokens import Packed, attention, packed
from sarm.backbone.varlen import form_for, installed_form
from sarm.reward.models import SARM
from sarm.reward.shared_prefix import pack
from sarm.sae.model import TopKSAE

SEQUENCES = [[1, 2, 3], [4, 5, 6], [7] * 5, [7, 7, 8, 9], [1], [2, 2], [2, 3, 3, 3], [5, 6, 7]]
SHARED = [0, 0, 0, 2, 0, 0, 1, 0]
SCALE = 0.3


def written_out(query: Tensor, key: Tensor, value: Tensor, *, cu_q: Tensor, cu_k: Tensor, scale: float) -> Tensor:
    """Attention of each query token by itself: causal from the bottom right, query head h looks at key head h // (heads / key heads)."""
    group = query.shape[1] // key.shape[1]
    out = []
    for q0, q1, k0, k1 in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), cu_k[:-1].tolist(), cu_k[1:].tolist(), strict=True):
        for token in range(q0, q1):
            seen = slice(k0, k1 - (q1 - 1 - token))
            heads = []
            for head in range(query.shape[1]):
                scores = key[seen, head // group] @ query[token, head] * scale
                heads.append(torch.softmax(scores, dim=0) @ value[seen, head // group])
            out.append(torch.stack(heads))
    return torch.stack(out)


def checked(query: Tensor, key: Tensor, *, borders: tuple[Tensor, Tensor], longest: tuple[int, int], grouped: bool) -> None:
    cu_q, cu_k = borders
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert longest == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    assert len(query) == cu_q[-1] and len(key) == cu_k[-1]
    assert grouped or query.shape[1] == key.shape[1], "this torch knows no grouped heads"


def of_torch_2_10(  # noqa: PLR0917 - torch's own signature
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, is_causal: bool = False,
    return_aux: object = None,
) -> Tensor:  # fmt: skip
    checked(query, key, borders=(cu_seq_q, cu_seq_k), longest=(max_q, max_k), grouped=False)
    assert is_causal
    return written_out(query, key, value, cu_q=cu_seq_q, cu_k=cu_seq_k, scale=query.shape[-1] ** -0.5)


def of_torch_2_11(  # noqa: PLR0917 - torch's own signature
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *, return_aux: object = None,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    checked(query, key, borders=(cu_seq_q, cu_seq_k), longest=(max_q, max_k), grouped=False)
    assert window_size == (-1, 0) and scale is not None
    return written_out(query, key, value, cu_q=cu_seq_q, cu_k=cu_seq_k, scale=scale)


def of_torch_2_12(  # noqa: PLR0917 - torch's own signature
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor | None, max_q: int, max_k: int, *,
    return_aux: object = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    seqused_k: object = None, block_table: object = None, num_splits: int | None = None,
) -> Tensor:  # fmt: skip
    assert cu_seq_k is not None and window_size == (-1, 0) and scale is not None and enable_gqa
    checked(query, key, borders=(cu_seq_q, cu_seq_k), longest=(max_q, max_k), grouped=True)
    assert key.shape[1] < query.shape[1], "heads are not repeated where the kernel knows groups"
    return written_out(query, key, value, cu_q=cu_seq_q, cu_k=cu_seq_k, scale=scale)


KERNELS: dict[str, Callable[..., Tensor] | None] = {
    "grouped": of_torch_2_12, "repeated": of_torch_2_11, "unscaled": of_torch_2_10, "none": None,
}  # fmt: skip


def pretend(monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Any] | None) -> None:
    """A torch with this kernel, or without the module."""
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None if kernel is None else SimpleNamespace(varlen_attn=kernel))  # type: ignore[arg-type]


@pytest.fixture(params=KERNELS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rows are packed as for a GPU under a torch of this kind."""
    pretend(monkeypatch, KERNELS[request.param])
    monkeypatch.setattr(packed_tokens, "form_for", lambda device, dtype: installed_form())
    return str(request.param)


def row() -> Packed:
    return packed(SEQUENCES, SHARED, [[len(one) - 1] for one in SEQUENCES], device=CPU, dtype=torch.float64)


def heads(count: int, tokens: int, seed: int) -> Tensor:
    return torch.randn(tokens, count, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def by_hand(query: Tensor, key: Tensor, value: Tensor, *, ends: bool) -> Tensor:
    """Each sequence with the keys and values that it sees, taken out one by one."""
    out, start, previous = [], 0, 0
    for number, (sequence, shared) in enumerate(zip(SEQUENCES, SHARED, strict=True)):
        own = len(sequence) - shared
        k, v = (torch.cat([one[previous : previous + shared], one[start : start + own]]) for one in (key, value))
        q = query[number : number + 1] if ends else query[start : start + own]
        out.append(written_out(q, k, v, cu_q=torch.tensor([0, len(q)]), cu_k=torch.tensor([0, len(k)]), scale=SCALE))
        start, previous = start + own, start
    return torch.cat(out)


@pytest.mark.parametrize("ends", [False, True])
def test_each_way_equals_attention_written_out_in_value_and_gradient(way: str, ends: bool) -> None:
    one = row()
    assert (one.bounds is None) == (way == "none")
    tokens = len(one.input_ids)
    query, key, value = heads(4, len(SEQUENCES) if ends else tokens, 0), heads(2, tokens, 1), heads(2, tokens, 2)
    found = []
    for out in (attention(query, key, value, one, ends=ends, scale=SCALE), by_hand(query, key, value, ends=ends)):
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        found.append((out, *torch.autograd.grad((out * weights).sum(), (query, key, value))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_reward_model_gives_the_rewards_of_conversations_alone_in_each_way(way: str) -> None:
    torch.manual_seed(0)
    model = SARM(truncated_backbone(LlamaConfig(**SIZES), 2), TopKSAE(hidden_size=32, n_latents=64, k=5)).double()
    model.sae.reset(torch.Generator().manual_seed(1))
    made = pairs()
    one = pack(made, dtype=torch.float64, device=CPU)
    assert (one.bounds is None) == (way == "none")
    rewards, _ = model.packed_rewards(one)
    alone = rewards_alone(model, [pair.chosen for pair in made] + [pair.rejected for pair in made])  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat([rewards[0::2], rewards[1::2]]), alone, rtol=1e-5, atol=1e-5)


def test_repeated_heads_under_a_mask_equal_grouped_ones() -> None:
    query, key, value = (heads(count, 12, seed).detach().unflatten(0, (2, 6)).transpose(1, 2) for seed, count in enumerate((4, 2, 2)))
    mask = torch.zeros(6, 6, dtype=torch.float64).masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    grouped = packed_tokens._attended(query, key, value, mask, causal=False, scale=SCALE)
    repeated = [varlen.repeated_heads(one, 4, dim=1) for one in (key, value)]
    assert repeated[0].shape == query.shape
    torch.testing.assert_close(packed_tokens._attended(query, *repeated, mask, causal=False, scale=SCALE), grouped)


@pytest.mark.parametrize(("form", "kernel"), KERNELS.items())
def test_the_form_is_read_off_the_signature(monkeypatch: pytest.MonkeyPatch, form: str, kernel: Callable[..., Any] | None) -> None:
    pretend(monkeypatch, kernel)
    assert installed_form() == (None if form == "none" else form)


def test_a_kernel_that_is_not_known_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda query, key, value, lengths: query)
    assert installed_form() is None


def test_the_installed_torch_has_the_form_of_its_release() -> None:
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    expected = "grouped" if release >= (2, 12) else "repeated" if release == (2, 11) else "unscaled" if release == (2, 10) else None
    assert installed_form() == expected


@pytest.mark.parametrize(
    ("device", "dtype", "card", "takes"),
    [
        ("cuda", torch.bfloat16, (9, 0), True),
        ("cuda", torch.float16, (8, 0), True),
        ("cuda", torch.float32, (9, 0), False),
        ("cuda", torch.float16, (7, 5), False),
        ("cpu", torch.bfloat16, (9, 0), False),
    ],
)
def test_only_half_precision_on_a_card_that_has_it_takes_the_kernel(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, card: tuple[int, int], takes: bool
) -> None:
    pretend(monkeypatch, of_torch_2_12)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card)
    assert form_for(torch.device(device), dtype) == ("grouped" if takes else None)


def test_a_row_is_looked_through_once_and_not_in_every_block(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SARM(truncated_backbone(LlamaConfig(**SIZES), 2), TopKSAE(hidden_size=32, n_latents=64, k=5))
    one = pack(pairs(), dtype=torch.float32, device=CPU)
    if way == "none":
        assert one.bounds is None
        return
    made: list[object] = []
    monkeypatch.setattr(torch, "tensor", lambda *given, **options: made.append(given))
    monkeypatch.setattr(torch, "arange", lambda *given, **options: made.append(given))
    monkeypatch.setattr(varlen, "_kernel", lambda: lambda query, *given, **options: query)
    model.packed_rewards(one)
    assert made == []
