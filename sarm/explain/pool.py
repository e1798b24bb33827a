"""A sample of all contexts, drawn by the hash of token and text."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sarm.explain.contexts import Integers, Origin, hash_of


class PoolEntry(NamedTuple):
    """A context of any ender position, with the TopK latents there: `latents` and `activations` `[k]`."""

    token: str
    text: str
    origin: Origin
    latents: Integers
    activations: npt.NDArray[np.float32]


class ContextPool:
    """A sample of all contexts, activating or not: the `size` different ones with the smallest hash, so that no order matters."""

    def __init__(self, size: int, *, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._entries: dict[int, PoolEntry] = {}
        self._largest: list[int] = []

    def offer(self, entry: PoolEntry) -> None:
        """Keep the entry when its hash is among the smallest; a (token, text) that is there stays as it was first."""
        rank = hash_of(f"{self._seed}/{entry.token}/{entry.text}")
        if rank in self._entries or (len(self._entries) >= self._size and rank >= -self._largest[0]):
            return
        self._entries[rank] = entry
        heapq.heappush(self._largest, -rank)
        if len(self._entries) > self._size:
            del self._entries[-heapq.heappop(self._largest)]

    def entries(self) -> list[PoolEntry]:
        """The kept entries, by hash."""
        return [entry for _, entry in sorted(self._entries.items())]
