"""Which rows each process works on: disjoint, complete, equally many rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from sarm.backbone.shared_harvest import places
from sarm.engine.group import ALONE
from sarm.engine.sharding import accumulation_steps, rounds_of, share_of
from sarm.engine.zero import zero_config
from sarm.job import IntegrityProblem, UsageProblem


def order(row: int) -> tuple[int, ...]:
    return (-row,)


def pieces(batch: Sequence[int]) -> list[list[int]]:
    """Micro-batches whose rows sum to at most 10; a larger row goes alone."""
    found: list[list[int]] = []
    for row in sorted(batch, reverse=True):
        if found and sum(found[-1]) + row <= 10:
            found[-1].append(row)
        else:
            found.append([row])
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_are_disjoint_complete_and_alike(processes: int) -> None:
    batch = [7, 1, 9, 3, 3, 8, 2, 2, 6, 5]
    shares = [share_of(batch, rank=rank, processes=processes, order=order) for rank in range(processes)]
    assert sorted(row for share in shares for row in share) == sorted(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert max(map(sum, shares)) - min(map(sum, shares)) <= 9


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_process_has_equally_many_rounds_and_each_row_counts_once(processes: int) -> None:
    batch = [10, 9, 9, 1, 1, 1, 1, 1]
    plans = [rounds_of(batch, rank=rank, processes=processes, order=order, split=pieces) for rank in range(processes)]
    assert len({len(plan) for plan in plans}) == 1
    assert sorted(row for plan in plans for one in plan for row in one.rows * one.counts) == sorted(batch)
    assert all(one.rows for plan in plans for one in plan), "a round without rows cannot be run"
    assert any(one.counts == 0 for plan in plans for one in plan) == (processes > 1)


def test_a_process_without_rows_keeps_step_with_the_smallest_row() -> None:
    plans = [rounds_of([4, 2], rank=rank, processes=3, order=order, split=pieces) for rank in range(3)]
    assert [[(one.rows, one.counts) for one in plan] for plan in plans] == [[([4], 1)], [([2], 1)], [([2], 0)]]


def test_harvested_rows_come_back_in_the_order_of_the_text() -> None:
    rows = places([2, 0, 3, 1], 2)
    assert [one.tolist() for one in rows] == [[0, 1, 2, 3, 4], [5]]
    assert sorted(torch.cat(places([1, 4, 2, 2, 5], 3)).tolist()) == list(range(14))


def test_rows_that_are_missing_or_twice_are_refused() -> None:
    ALONE.check_shares([["a", "b"]], [["b", "a"]])
    for wrong in (["a"], ["a", "a"], ["a", "b", "b"]):
        with pytest.raises(IntegrityProblem, match="step 0: the processes' shares have"):
            ALONE.check_shares([["a", "b"]], [wrong])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_configuration_fixes_the_global_batch_and_brings_no_optimizer(stage: int) -> None:
    found = zero_config(stage=stage, rows=8, processes=4, dtype=torch.bfloat16, max_norm=0.5, universal=False)
    assert "optimizer" not in found and "scheduler" not in found, "DeepSpeed's own would have to be compiled"
    assert found["zero_optimization"]["stage"] == stage
    assert (found["train_batch_size"], found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (8, 2, 1)
    assert found["bf16"] == {"enabled": True} and found["gradient_clipping"] == 0.5
    assert ("stage3_gather_16bit_weights_on_model_save" in found["zero_optimization"]) == (stage == 3)


def test_sizes_and_precisions_that_do_not_go_are_refused() -> None:
    with pytest.raises(UsageProblem, match="a batch of 10 rows is not a multiple of 4 processes; choose sizes that divide"):
        zero_config(stage=2, rows=10, processes=4, dtype=torch.float32, max_norm=1.0, universal=False)
    with pytest.raises(UsageProblem, match="set dtype = 'bfloat16'"):
        zero_config(stage=2, rows=8, processes=4, dtype=torch.float16, max_norm=1.0, universal=False)


def test_global_batch_that_does_not_divide_is_refused() -> None:
    assert accumulation_steps(global_batch=512, processes=8, micro_batch=4) == 16
    with pytest.raises(UsageProblem, match="global batch 10 is not a multiple of 2 processes x micro-batch 3; choose sizes that divide"):
        accumulation_steps(global_batch=10, processes=2, micro_batch=3)
