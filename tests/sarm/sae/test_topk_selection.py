"""The exact TopK: the same values as torch's, with ties, missing numbers and every width."""

from __future__ import annotations

import pytest
import torch

from sarm.sae import topk_selection
from sarm.sae.topk_selection import select_topk


def random_rows(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(columns))


def assert_equal_to_torch(pre_acts: torch.Tensor, k: int) -> None:
    found, reference = select_topk(pre_acts, k), pre_acts.topk(k, dim=-1)
    assert torch.equal(found.values.sort(dim=-1, descending=True).values, reference.values)
    assert torch.equal(pre_acts.gather(1, found.indices), found.values)
    assert all(len(set(row)) == k for row in found.indices.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("columns", "k"), [(4096, 16), (2048, 1), (1000, 7), (512, 200), (37, 5), (16, 16), (1, 1)])
def test_values_are_those_of_torch_and_indices_point_at_them(columns: int, k: int, dtype: torch.dtype) -> None:
    assert_equal_to_torch(random_rows(13, columns, dtype), k)


def test_without_ties_the_indices_are_those_of_torch() -> None:
    pre_acts = random_rows(64, 1024)
    assert torch.equal(select_topk(pre_acts, 8).indices.sort().values, pre_acts.topk(8).indices.sort().values)


def test_ties_at_the_border_still_give_k_of_each_row() -> None:
    pre_acts = random_rows(9, 1024)
    pre_acts[3] = 0.0
    pre_acts[5, 100:140] = 9.0
    pre_acts[6] = float("-inf")
    assert_equal_to_torch(pre_acts, 8)


def test_largest_of_one_group_can_fill_the_whole_selection() -> None:
    pre_acts = -random_rows(2, 1024).abs()
    # The group of column 3 holds every 64th column or fewer of them; all of these are among the kept.
    pre_acts[0, 3::64] = torch.arange(1.0, 17.0)
    assert_equal_to_torch(pre_acts, 16)


def test_missing_number_counts_as_the_largest_as_in_torch() -> None:
    pre_acts = random_rows(4, 1024)
    pre_acts[2, 77] = float("nan")
    pre_acts[0, 5:30] = 8.0
    found = select_topk(pre_acts, 8)
    assert 77 in found.indices[2].tolist() and found.values[2].isnan().sum() == 1
    assert not found.values[[0, 1, 3]].isnan().any()


def test_a_tie_and_a_missing_number_that_even_out_are_noticed() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0, 3.0], [1.0, 2.0, float("nan"), 0.0]])
    assert topk_selection._above_a_clear_border(values, 2) is None
    assert topk_selection._above_a_clear_border(values.flip(0), 2) is None


def test_wide_rows_are_searched_by_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    by_groups = topk_selection._by_groups
    monkeypatch.setattr(topk_selection, "_by_groups", lambda p, k, group: used.append(group) or by_groups(p, k, group))
    select_topk(random_rows(4, 4096), 16)
    select_topk(random_rows(4, 4095), 16)
    assert used == [16]


@pytest.mark.parametrize("k", [0, 9])
def test_k_outside_the_width_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} must lie between 1 and the number of latents, 8"):
        select_topk(torch.zeros(2, 8), k)
