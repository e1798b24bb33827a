"""Which rows of a batch each process works on, and in how many rounds. Pure: the same answer in every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sarm.job import UsageProblem

Row = TypeVar("Row")


class Round(NamedTuple):
    """Rows of one forward and backward pass. `counts` is 0 where they only keep step with the other processes, else 1."""

    rows: list[Any]
    counts: int


def share_of(batch: Sequence[Row], *, rank: int, processes: int, order: Callable[[Row], tuple[Any, ...]]) -> list[Row]:
    """The rows of one process: dealt out in `order` (largest first), so that the shares are disjoint, complete and alike in size."""
    return sorted(batch, key=order)[rank::processes]


def rounds_of(
    batch: Sequence[Row],
    *,
    rank: int,
    processes: int,
    order: Callable[[Row], tuple[Any, ...]],
    split: Callable[[Sequence[Row]], list[list[Row]]],
) -> list[Round]:
    """One process's rounds of a batch that `split` cuts into micro-batches. Every process has equally many.

    Where another process has more, rounds that count nothing are added: collectives of sharded weights must meet.
    """
    if processes == 1:
        return [Round(rows, 1) for rows in split(batch)]
    plans = [split(share_of(batch, rank=one, processes=processes, order=order)) for one in range(processes)]
    mine, most = plans[rank], max(len(plan) for plan in plans)
    smallest = sorted(batch, key=order)[-1:]
    return [Round(rows, 1) for rows in mine] + [Round(smallest, 0)] * (most - len(mine))


def accumulation_steps(*, global_batch: int, processes: int, micro_batch: int) -> int:
    """Micro-batches of one process in one optimizer step. Raises UsageProblem when the sizes do not divide."""
    if global_batch % (processes * micro_batch):
        raise UsageProblem(
            f"global batch {global_batch} is not a multiple of {processes} processes x micro-batch {micro_batch}; "
            "choose sizes that divide"
        )
    return global_batch // (processes * micro_batch)
