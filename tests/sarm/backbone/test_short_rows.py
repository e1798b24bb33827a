"""Attention of short sequences in one call equals a call for each, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sarm.backbone.packed_tokens import Packed, attention, packed
from sarm.backbone.short_rows import LONGEST_ROW, short_rows

CPU = torch.device("cpu")
# Own tokens of each sequence, and how many of the one before it sees: pairs with a prompt, one without, one of single tokens.
SEQUENCES = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [7, 8], [7, 9, 9, 9], [10, 11, 12], [13], [14, 15], [14, 16], [17, 18, 19], [17, 18, 20, 21]]
SHARED = [0, 3, 0, 1, 0, 0, 0, 1, 0, 2]


def row() -> Packed:
    return packed(SEQUENCES, SHARED, [[len(one) - 1] for one in SEQUENCES], device=CPU, dtype=torch.float64)


def heads(count: int, tokens: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, count, 4, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("ends", [False, True])
def test_one_call_equals_a_call_for_each_sequence(ends: bool) -> None:
    one = row()
    assert one.rows is not None, "the sequences are short and several"
    tokens = len(one.input_ids)
    query, key, value = heads(4, len(SEQUENCES) if ends else tokens, 0), heads(2, tokens, 1), heads(2, tokens, 2)
    found = []
    for variant in (one, one._replace(rows=None)):
        out = attention(query, key, value, variant, ends=ends, scale=0.5)
        gradients = torch.autograd.grad((out * torch.arange(out.numel(), dtype=out.dtype).view_as(out)).sum(), (query, key, value))
        found.append((out, *gradients))
    for ours, theirs in zip(*found, strict=True):
        assert torch.isfinite(ours).all() and torch.allclose(ours, theirs, atol=1e-12)


def test_long_or_few_sequences_get_a_call_each() -> None:
    assert short_rows([LONGEST_ROW, 2] + [3] * 8, [0, 1] + [0] * 8, device=CPU, dtype=torch.float32) is None
    assert short_rows([3, 2], [0, 1], device=CPU, dtype=torch.float32) is None


def test_sequences_that_share_nothing_are_not_padded() -> None:
    alone = [list(range(1, 4)), list(range(1, 6)), list(range(1, 3)), [5, 6], [7]]
    assert packed(alone, [0] * 5, [[0]] * 5, device=CPU, dtype=torch.float32).rows is None
