"""Cached hidden states, one a reply, and the items that they belong to: `states.safetensors` and `items.jsonl`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sarm.data.preferences import DataError, Message, ScoredPreference, read_jsonl
from sarm.store.json_lines import write_lines

STATES, ITEMS = "states.safetensors", "items.jsonl"


class StatedItem(BaseModel):
    """One pair or benchmark item: how many of the states are its own, chosen first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    subset: str = ""
    source: str = ""
    prompt: str = Field(description="SHA-256 of the prompt, so that splits by prompt need no text.")
    chosen: int = Field(ge=1, description="Chosen replies.")
    rejected: int = Field(ge=1, description="Rejected replies.")
    truncated: int = Field(default=0, ge=0, description="Replies whose conversation was cut.")


class CachedStates(NamedTuple):
    """States `[replies, hidden_size]`, item by item, each item's chosen replies first."""

    items: list[StatedItem]
    states: Tensor

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Chosen and rejected states, `[pairs, hidden_size]` each. Raises DataError for an item that is no pair."""
        for item in self.items:
            if (item.chosen, item.rejected) != (1, 1):
                raise DataError(f"item {item.id!r} has {item.chosen} chosen and {item.rejected} rejected replies; a pair has one of each")
        return self.states[0::2], self.states[1::2]


def prompt_digest(prompt: Sequence[Message]) -> str:
    """SHA-256 of a prompt's turns."""
    return hashlib.sha256("\n".join(f"{message.role}: {message.content}" for message in prompt).encode()).hexdigest()


def held_out(item: StatedItem, *, fraction: float, seed: int) -> bool:
    """Whether an item's prompt belongs to the validation split of a seed, so that no prompt is on both sides."""
    digest = hashlib.sha256(f"{seed}/{item.prompt}".encode()).hexdigest()
    return int(digest[:8], 16) < fraction * 16**8


def write_states(folder: Path, items: Sequence[StatedItem], states: Tensor) -> None:
    """Write both files. Raises ValueError where there are more or fewer states than replies."""
    replies = sum(item.chosen + item.rejected for item in items)
    if replies != len(states):
        raise ValueError(f"{len(states)} states for {replies} replies")
    save_file({"states": states.cpu().contiguous()}, folder / STATES)
    write_lines(folder / ITEMS, items)


def read_states(folder: Path) -> CachedStates:
    """What `write_states` wrote. Raises DataError for files that are absent, damaged, or do not belong together."""
    try:
        states = load_file(folder / STATES)["states"]
        items = list(read_jsonl(folder / ITEMS, StatedItem))
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(f"{folder.name}: no cached states ({type(error).__name__}: {error}); harvest them again") from error
    replies = sum(item.chosen + item.rejected for item in items)
    if replies != len(states) or not items:
        raise DataError(f"{folder.name}: {len(states)} states for {replies} replies; harvest them again")
    return CachedStates(items, states)


def regrouped(items: Sequence[StatedItem], rewards: Tensor) -> list[ScoredPreference]:
    """Rewards `[replies]` back in the shape of the items. Raises DataError that names an item whose reward is not finite."""
    scored, start = [], 0
    for item in items:
        part = rewards[start : start + item.chosen + item.rejected]
        start += len(part)
        if not bool(torch.isfinite(part).all()):
            raise DataError(f"item {item.id!r} of subset {item.subset!r}: the reward is not finite; look at the head's training")
        values = part.tolist()
        scored.append(
            ScoredPreference(
                id=item.id,
                subset=item.subset,
                source=item.source,
                chosen_rewards=tuple(values[: item.chosen]),
                rejected_rewards=tuple(values[item.chosen :]),
                truncated=item.truncated,
            )
        )
    return scored
