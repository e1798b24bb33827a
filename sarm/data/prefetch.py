"""The next item of a sequence made in a thread while the current one is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in the same order, each made by one thread while the one before it is used; at most one waits.

    An error in making an item is raised where that item would have come.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        following = thread.submit(_one, items)
        while made := following.result():
            following = thread.submit(_one, items)
            yield made[0]


def _one(items: Iterator[Item]) -> tuple[Item, ...]:
    """The next item alone, or nothing at the end."""
    for item in items:
        return (item,)
    return ()
