"""Contexts that activate a latent: their files, merging, the strongest and spread ones. Source: apply.py of the released code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sarm.data.preferences import Message

Half = Literal["explain", "held-out"]
Integers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


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


def prompt_half(prompt: Sequence[Message], *, held_out_fraction: float, seed: int) -> Half:
    """The half of a prompt, by hash: all completions of one prompt are on one side."""
    text = "\n".join(f"{message.role}: {message.content}" for message in prompt)
    return "held-out" if hash_of(f"{seed}/{text}") < held_out_fraction * 2**64 else "explain"


def hash_of(text: str) -> int:
    """The first eight bytes of a text's SHA-256 as a number below 2**64: the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


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


