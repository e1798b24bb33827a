"""The pool of contexts that detection draws from."""

from __future__ import annotations

import numpy as np

from sarm.explain.contexts import Origin
from sarm.explain.pool import ContextPool, PoolEntry

HERE = Origin("item", "chosen", 0, "explain")


def entry_of(text: str, origin: Origin = HERE) -> PoolEntry:
    return PoolEntry(".", text, origin, np.array([1], dtype=np.int32), np.array([1.0], dtype=np.float32))


def test_the_pool_does_not_depend_on_the_order() -> None:
    one, other = ContextPool(5, seed=0), ContextPool(5, seed=0)
    for number in range(40):
        one.offer(entry_of(f"text {number}"))
        other.offer(entry_of(f"text {39 - number}"))
    assert [entry.text for entry in one.entries()] == [entry.text for entry in other.entries()]
    assert len(one.entries()) == 5


def test_a_text_is_in_the_pool_once_as_it_was_first() -> None:
    pool = ContextPool(5, seed=0)
    pool.offer(entry_of("a"))
    pool.offer(entry_of("a", HERE._replace(item="later")))
    assert [entry.origin.item for entry in pool.entries()] == ["item"]
