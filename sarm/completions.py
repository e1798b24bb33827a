"""All completions of a benchmark as token rows, and what belongs to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sarm.data.pairs import conversation
from sarm.data.preferences import Preference
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, Overlong


class Completion(NamedTuple):
    """One reply of one item: which item (by place), which side, which place on that side."""

    item: int
    side: Literal["chosen", "rejected"]
    place: int


def completions_of(items: Sequence[Preference]) -> list[Completion]:
    """Each item's chosen, then its rejected, item by item: the order of the official unrolling."""
    return [
        Completion(index, side, place)
        for index, item in enumerate(items)
        for side, replies in (("chosen", item.chosen), ("rejected", item.rejected))
        for place in range(len(replies))
    ]


def encode_completions(
    items: Sequence[Preference], tokenizer: ConversationTokenizer, *, max_length: int, overlong: Overlong, name: str
) -> list[EncodedConversation]:
    """Token rows of `completions_of(items)`. Raises DataError that names the item."""
    turns, names = [], []
    for index, side, place in completions_of(items):
        item = items[index]
        turns.append(conversation(item.prompt, (item.chosen if side == "chosen" else item.rejected)[place]))
        names.append(f"{name} item {item.id!r}")
    return tokenizer.encode_many(turns, max_length=max_length, overlong=overlong, names=names)


