"""All completions of a benchmark as token rows, and what belongs to each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sarm.data.harness import HarnessTokenizer
from sarm.data.pairs import conversation
from sarm.data.preferences import Preference, ScoredPreference
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, Overlong
from sarm.job import UsageProblem

Side = Literal["chosen", "rejected"]


class Completion(NamedTuple):
    """One reply of one item: which item (by place), which side, which place on that side."""

    item: int
    side: Side
    place: int


def completions_of(items: Sequence[Preference]) -> list[Completion]:
    """Each item's chosen, then its rejected, item by item: the order of the official unrolling."""
    found = []
    for index, item in enumerate(items):
        found += [Completion(index, "chosen", place) for place in range(len(item.chosen))]
        found += [Completion(index, "rejected", place) for place in range(len(item.rejected))]
    return found


def reply_of(items: Sequence[Preference], completion: Completion) -> str:
    """The text of a completion."""
    item = items[completion.item]
    return (item.chosen if completion.side == "chosen" else item.rejected)[completion.place]


def encode_completions(
    items: Sequence[Preference],
    tokenizer: ConversationTokenizer | HarnessTokenizer,
    *,
    max_length: int,
    overlong: Overlong,
    name: str,
) -> list[EncodedConversation]:
    """Token rows of `completions_of(items)`; `name` is the benchmark's, for messages. Raises DataError that names the item."""
    turns = [conversation(items[one.item].prompt, reply_of(items, one)) for one in completions_of(items)]
    return tokenizer.encode_many(turns, max_length=max_length, overlong=overlong, names=names_of(items, name))


def names_of(items: Sequence[Preference], name: str) -> list[str]:
    """How each of `completions_of(items)` is called in a message; `name` is the benchmark's."""
    return [f"{name} item {items[one.item].id!r}" for one in completions_of(items)]


def regroup(items: Sequence[Preference], rows: Sequence[EncodedConversation], rewards: Sequence[float]) -> list[ScoredPreference]:
    """Rewards back in the shape of the items. Raises UsageProblem that names an item whose reward is not finite."""
    scored, start = [], 0
    for item in items:
        count = len(item.chosen) + len(item.rejected)
        part = rewards[start : start + count]
        if not all(math.isfinite(reward) for reward in part):
            place = f"item {item.id!r} of subset {item.subset!r}"
            raise UsageProblem(f"{place}: the reward is not finite; score in another dtype or look at the weights")
        scored.append(
            ScoredPreference(
                id=item.id,
                subset=item.subset,
                source=item.source,
                chosen_rewards=tuple(part[: len(item.chosen)]),
                rejected_rewards=tuple(part[len(item.chosen) :]),
                truncated=sum(row.truncated for row in rows[start : start + count]),
            )
        )
        start += count
    return scored
