"""Items made ahead are the same items in the same order, errors included."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import cast

import pytest

from sarm.data.prefetch import ahead


def test_items_come_in_order_even_if_they_are_empty() -> None:
    assert list(ahead(iter([3, 0, None, [], 1]))) == [3, 0, None, [], 1]
    assert list(ahead(iter([]))) == []


def test_the_next_item_is_made_while_the_current_one_is_used() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    made = ahead(items())
    assert next(made) == 1
    assert second.wait(timeout=30), "made without being asked for"
    assert list(made) == [2]


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second is broken")

    made = ahead(items())
    assert next(made) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(made)


def test_items_that_are_no_longer_wanted_are_not_made() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    made = ahead(items())
    next(made)
    cast(Generator[int, None, None], made).close()
    assert len(asked) <= 2
