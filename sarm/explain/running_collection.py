"""What grows while rows are read: contexts, the pool, and at how many positions each latent fired. It resumes exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sarm.config.latents import ContextConfig
from sarm.explain.collection import CollectionRules, CollectorState, ContextCollector, Span
from sarm.explain.contexts import Origin
from sarm.explain.pool import ContextPool, PoolEntry


class ContextRow(NamedTuple):
    """A conversation with its contexts; `has_header` is false where truncation cut the assistant header off."""

    ids: list[int]
    spans: list[Span]
    origin: Origin
    has_header: bool
    truncated: bool


class PositionLatents(NamedTuple):
    """The k latents at some positions: `indices` (int64) and `values` (float32), both `[positions, k]` on the CPU."""

    indices: Tensor
    values: Tensor


class RunningCollection:
    """What grows while rows are read: contexts, pool, and at how many positions each latent fired; resumes exactly."""

    def __init__(self, config: ContextConfig, n_latents: int) -> None:
        self._rules = CollectionRules(
            threshold=config.threshold, max_per_token=config.max_per_token, lines=config.lines, duplicates=config.duplicates
        )
        self.collector = ContextCollector(self._rules)
        self.pool = ContextPool(config.pool, seed=config.seed)
        self.above_threshold = torch.zeros(n_latents, dtype=torch.int64)
        self.above_zero = torch.zeros(n_latents, dtype=torch.int64)
        self.in_row: list[np.ndarray] = []

    def read(self, row: ContextRow, latents: PositionLatents, tokenizer: Any) -> None:
        """Take in one row: `latents` at the ends of its spans."""
        self.in_row.append(np.unique(latents.indices[latents.values > self._rules.threshold].numpy().astype(np.int32)))
        for (start, position), indices, values in zip(row.spans, latents.indices, latents.values, strict=True):
            token = str(tokenizer.convert_ids_to_tokens(row.ids[position]))
            text = str(tokenizer.decode(row.ids[start : position + 1])).strip()
            above = values > self._rules.threshold
            self.above_threshold[indices[above]] += 1
            self.above_zero[indices[values > 0]] += 1
            self.collector.add(
                token=token, text=text, origin=row.origin, latents=indices[above].tolist(), activations=values[above].tolist()
            )
            self.pool.offer(PoolEntry(token, text, row.origin, indices.numpy().astype(np.int32), values.numpy().copy()))

    def tensors(self) -> dict[str, Tensor]:
        """State for a checkpoint; the other part is `facts`."""
        state, entries = self.collector.state(), self.pool.entries()
        arrays = {name: torch.from_numpy(value) for name, value in state._asdict().items() if name != "texts"}
        return {
            **arrays,
            "above_threshold": self.above_threshold,
            "above_zero": self.above_zero,
            "pool_latents": stacked([entry.latents for entry in entries]),
            "pool_activations": stacked([entry.activations for entry in entries]),
            "row_latents": torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int32), *self.in_row])),
            "row_counts": torch.tensor([len(latents) for latents in self.in_row], dtype=torch.int64),
        }

    def facts(self) -> dict[str, Any]:
        """Texts of the state as plain values."""
        pool = [[entry.token, entry.text, *entry.origin] for entry in self.pool.entries()]
        return {"texts": self.collector.state().texts, "pool": pool}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on where `tensors` and `facts` were taken."""
        arrays = {name: tensors[name].numpy() for name in CollectorState._fields if name != "texts"}
        self.collector = ContextCollector.resumed(self._rules, CollectorState(texts=facts["texts"], **arrays))
        vectors = zip(tensors["pool_latents"].numpy(), tensors["pool_activations"].numpy(), strict=True)
        for (token, text, *origin), (latents, activations) in zip(facts["pool"], vectors, strict=True):
            self.pool.offer(PoolEntry(token, text, Origin(*origin), latents, activations))
        self.above_threshold = tensors["above_threshold"]
        self.above_zero = tensors["above_zero"]
        self.in_row = [part.numpy() for part in tensors["row_latents"].split(tensors["row_counts"].tolist())]

    def polarity(self, rows: Sequence[ContextRow]) -> dict[str, Tensor]:
        """In how many items a larger share of the chosen than of the rejected replies has a latent, and the other way, `[n_latents]`.

        `rows` are those that were read, in their order. An item without a reply on one side says nothing and is left out.
        """
        n_latents = len(self.above_zero)
        places: dict[str, dict[str, list[int]]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.origin.item, {}).setdefault(row.origin.side, []).append(place)
        more = {name: np.zeros(n_latents, dtype=np.int64) for name in ("chosen_more", "rejected_more")}
        for sides in places.values():
            if len(sides) < 2:
                continue
            shares = {
                side: np.bincount(np.concatenate([self.in_row[place] for place in found]), minlength=n_latents) / len(found)
                for side, found in sides.items()
            }
            more["chosen_more"] += shares["chosen"] > shares["rejected"]
            more["rejected_more"] += shares["chosen"] < shares["rejected"]
        return {name: torch.from_numpy(count) for name, count in more.items()}


def stacked(vectors: Sequence[np.ndarray]) -> Tensor:
    """`[n, k]` of n vectors; `[0, 0]` of none."""
    return torch.from_numpy(np.stack(vectors)) if vectors else torch.empty(0, 0)
