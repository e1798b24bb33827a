"""Which contexts activate a latent: spans, collection, merging, halves, a pool of all contexts. Source: apply.py, merge_context.py."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sarm.data.preferences import Message

Half = Literal["explain", "held-out"]
Duplicates = Literal["first", "max"]
Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

SHORTEST_CONTEXT = 10
MOST_TOKEN_CLASSES = 100


class ContextEntry(BaseModel):
    """One activating context: its text, and the latent's activation at the context's last token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str
    activation: float


ContextMap = dict[int, dict[str, list[ContextEntry]]]


class ContextFile(BaseModel):
    """A context file as the released code writes it. `latent_context_map`: latent -> token string -> contexts, largest activation first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total_latents: int
    threshold: float
    max_length: int
    max_per_token: int
    lines: int
    latent_context_map: ContextMap


class Origin(NamedTuple):
    """Where a context was seen first: item (as in `concepts.json`: `subset/id`, or `id`), side, place on that side, half of its prompt."""

    item: str
    side: str
    place: int
    half: Half


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


def prompt_half(prompt: Sequence[Message], *, held_out_fraction: float, seed: int) -> Half:
    """The half of a prompt, by hash: all completions of one prompt are on one side."""
    text = "\n".join(f"{message.role}: {message.content}" for message in prompt)
    return "held-out" if _hash(f"{seed}/{text}") < held_out_fraction * 2**64 else "explain"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


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


def merge_contexts(files: Sequence[ContextFile], *, threshold: float, min_entries: int, max_per_token: int = 256) -> ContextFile:
    """Context files as one: a text that comes twice for a (latent, token) counts with its largest activation.

    Then activations strictly above `threshold`, (latent, token) lists of at least `min_entries`, the `max_per_token` strongest.
    Raises ValueError for no file and for files of unequal max_length. Deviation: the released code writes max_length 1024
    whatever the files say; ours is the files' own. Source: merge_context.py.
    """
    lengths = sorted({file.max_length for file in files})
    if len(lengths) != 1:
        raise ValueError(f"context files of max_length {lengths} cannot be merged; give at least one, all of the same max_length")
    strongest: dict[int, dict[str, dict[str, float]]] = {}
    for file in files:
        for latent, tokens in file.latent_context_map.items():
            for token, entries in tokens.items():
                _take_strongest(strongest.setdefault(latent, {}).setdefault(token, {}), entries)
    merged: ContextMap = {}
    for latent, found in strongest.items():
        for token, activations in found.items():
            kept = [ContextEntry(context=text, activation=value) for text, value in activations.items() if value > threshold]
            if kept and len(kept) >= min_entries:
                kept.sort(key=lambda entry: entry.activation, reverse=True)
                merged.setdefault(latent, {})[token] = kept[:max_per_token]
    return ContextFile(
        total_latents=len(merged),
        threshold=threshold,
        max_length=lengths[0],
        max_per_token=max_per_token,
        lines=min_entries,
        latent_context_map=merged,
    )


def _take_strongest(activations: dict[str, float], entries: Iterable[ContextEntry]) -> None:
    for entry in entries:
        if entry.activation > activations.get(entry.context, float("-inf")):
            # A replaced text goes to the end, as released; it decides among equal activations.
            activations.pop(entry.context, None)
            activations[entry.context] = entry.activation


def strongest_contexts(tokens: Mapping[str, Sequence[ContextEntry]], count: int) -> list[ContextEntry]:
    """The `count` strongest contexts of a latent over all tokens. Source: interpret.py (`context_per_latent` 40)."""
    entries = [entry for listed in tokens.values() for entry in listed]
    return sorted(entries, key=lambda entry: entry.activation, reverse=True)[:count]


def spread_contexts(entries: Sequence[ContextEntry], count: int) -> list[ContextEntry]:
    """`count` contexts at equal distances in the order of activation, from the strongest to the weakest; all when there are fewer."""
    ordered = sorted(entries, key=lambda entry: (-entry.activation, entry.context))
    if len(ordered) <= count:
        return ordered
    return [ordered[int(place)] for place in np.linspace(0, len(ordered) - 1, count).round()]


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
        rank = _hash(f"{self._seed}/{entry.token}/{entry.text}")
        if rank in self._entries or (len(self._entries) >= self._size and rank >= -self._largest[0]):
            return
        self._entries[rank] = entry
        heapq.heappush(self._largest, -rank)
        if len(self._entries) > self._size:
            del self._entries[-heapq.heappop(self._largest)]

    def entries(self) -> list[PoolEntry]:
        """The kept entries, by hash."""
        return [entry for _, entry in sorted(self._entries.items())]
