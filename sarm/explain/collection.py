"""Spans of a conversation and the contexts that activate each latent most. Source: apply.py of the released code."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from sarm.explain.contexts import ContextEntry, ContextMap, Floats, Integers, Origin

Duplicates = Literal["first", "max"]
SHORTEST_CONTEXT = 10
MOST_TOKEN_CLASSES = 100


class Span(NamedTuple):
    """A context in a row of tokens: from `start` to the ender at `position`, both included."""

    start: int
    position: int


class CollectionRules(NamedTuple):
    """How contexts are kept.

    `threshold`: activations strictly above it. `max_per_token`: most contexts of a (latent, token). `lines`: a latent is kept with
    more contexts than that. `duplicates`: a text seen again for the same latent and token is skipped, also when it was evicted
    meanwhile (`first`, as released), or counts with its largest activation (`max`).
    """

    threshold: float
    max_per_token: int = 128
    lines: int = 4
    max_token_classes: int = MOST_TOKEN_CLASSES
    duplicates: Duplicates = "first"


def context_spans(ids: Sequence[int], *, start: int, enders: Collection[int], shortest: int = SHORTEST_CONTEXT) -> list[Span]:
    """The contexts of one row, in order: one for each ender at or after `start`.

    A context begins with its sentence and reaches back over whole sentences while it has fewer than `shortest` tokens.
    Source: apply.py:386-400.
    """
    sentence_starts, spans = [start], []
    for position in range(start, len(ids)):
        if ids[position] in enders:
            reached = len(sentence_starts) - 1
            while reached > 0 and position + 1 - sentence_starts[reached] < shortest:
                reached -= 1
            spans.append(Span(start=sentence_starts[reached], position=position))
            sentence_starts.append(position + 1)
    return spans


class _Text(NamedTuple):
    token: str
    text: str
    origin: Origin


class CollectorState(NamedTuple):
    """A collector as plain values and arrays, from which it goes on exactly.

    `texts`: rows of (token, text, *origin). `seen`: latents of all texts one after the other, `seen_counts` how many of each.
    `heap_latents`, `heap_texts`, `heap_activations`: entries in the order of the heaps.
    """

    texts: list[list[str | int]]
    seen: Integers
    seen_counts: Integers
    heap_latents: Integers
    heap_texts: Integers
    heap_activations: Floats


class ContextCollector:
    """Keeps the strongest contexts of each (latent, token string) while rows are read."""

    def __init__(self, rules: CollectionRules) -> None:
        self._rules = rules
        self._texts: list[_Text] = []
        self._numbers: dict[tuple[str, str], int] = {}
        # The latents for which a text was seen, as one array a text: a set for each latent would not fit the memory.
        self._seen: list[Integers] = []
        self._heaps: dict[int, dict[str, list[tuple[float, str, int]]]] = {}

    def add(self, *, token: str, text: str, origin: Origin, latents: Sequence[int], activations: Sequence[float]) -> None:
        """One ender position: its token string, its context, and the latents with their activations there."""
        above = [(latent, value) for latent, value in zip(latents, activations, strict=True) if value > self._rules.threshold]
        if not above:
            return
        number = self._numbers.setdefault((token, text), len(self._texts))
        if number == len(self._texts):
            self._texts.append(_Text(token, text, origin))
            self._seen.append(np.empty(0, dtype=np.int32))
        seen = self._seen[number]
        again = set(seen.tolist()).intersection(latent for latent, _ in above) if len(seen) else set()
        for latent, activation in above:
            self._offer(latent, number, activation, again=latent in again)
        fresh = [latent for latent, _ in above if latent not in again]
        self._seen[number] = np.concatenate([seen, np.array(fresh, dtype=np.int32)])

    def _offer(self, latent: int, number: int, activation: float, *, again: bool) -> None:
        if again and self._rules.duplicates == "first":
            return
        token, text, _ = self._texts[number]
        heap = self._heaps.setdefault(latent, {}).setdefault(token, [])
        if again:
            place = next((place for place, entry in enumerate(heap) if entry[2] == number), None)
            if place is not None:
                heap[place] = max(heap[place], (activation, text, number))
                heapq.heapify(heap)
                return
        heapq.heappush(heap, (activation, text, number))
        if len(heap) > self._rules.max_per_token:
            heapq.heappop(heap)

    def contexts(self) -> ContextMap:
        """What is kept, latents and tokens in order. Source: apply.py:425-439."""
        kept: ContextMap = {}
        for latent, tokens in sorted(self._heaps.items()):
            if len(tokens) <= self._rules.max_token_classes and sum(map(len, tokens.values())) > self._rules.lines:
                kept[latent] = {token: _entries(heap) for token, heap in sorted(tokens.items())}
        return kept

    def origins(self) -> dict[str, Origin]:
        """Text -> where it was seen first, for all texts that some latent above the threshold was seen with."""
        found: dict[str, Origin] = {}
        for _, text, origin in self._texts:
            found.setdefault(text, origin)
        return found

    def state(self) -> CollectorState:
        """Everything that the collector knows."""
        entries = [(latent, entry) for latent, tokens in self._heaps.items() for heap in tokens.values() for entry in heap]
        return CollectorState(
            texts=[[token, text, *origin] for token, text, origin in self._texts],
            seen=np.concatenate([np.empty(0, dtype=np.int32), *self._seen]),
            seen_counts=np.array([len(seen) for seen in self._seen], dtype=np.int32),
            heap_latents=np.array([latent for latent, _ in entries], dtype=np.int32),
            heap_texts=np.array([entry[2] for _, entry in entries], dtype=np.int32),
            heap_activations=np.array([entry[0] for _, entry in entries], dtype=np.float64),
        )

    @classmethod
    def resumed(cls, rules: CollectionRules, state: CollectorState) -> ContextCollector:
        """A collector that goes on where `state` was taken."""
        collector = cls(rules)
        for token, text, item, side, place, half in state.texts:
            origin = Origin(item=str(item), side=str(side), place=int(place), half="held-out" if half == "held-out" else "explain")
            collector._numbers[(str(token), str(text))] = len(collector._texts)
            collector._texts.append(_Text(str(token), str(text), origin))
        ends = np.cumsum(state.seen_counts)
        collector._seen = [state.seen[end - count : end] for end, count in zip(ends, state.seen_counts, strict=True)]
        entries = zip(state.heap_latents.tolist(), state.heap_texts.tolist(), state.heap_activations.tolist(), strict=True)
        for latent, number, activation in entries:
            token, text, _ = collector._texts[number]
            collector._heaps.setdefault(latent, {}).setdefault(token, []).append((activation, text, number))
        return collector


def _entries(heap: Iterable[tuple[float, str, int]]) -> list[ContextEntry]:
    # A stable sort of the heap as it lies, as released: it decides among equal activations.
    strongest_first = sorted(heap, key=lambda entry: entry[0], reverse=True)
    return [ContextEntry(context=text, activation=activation) for activation, text, _ in strongest_first]
