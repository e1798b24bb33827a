"""Training pairs as token ids: encoded once, dropped or cut by rule, counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sarm.data.preferences import DataError, Message, Preference, read_jsonl
from sarm.data.tokens import NO_IDS, ConversationTokenizer, Overlong, RefusedTurns

ENCODE_AT_ONCE = 512


class EncodedPair(NamedTuple):
    """Token ids of both conversations, each ending with the end of turn; `place` is the pair's own among those that were encoded."""

    chosen: list[int]
    rejected: list[int]
    id: str
    place: int = 0

    @property
    def sides(self) -> tuple[list[int], list[int]]:
        """Both conversations."""
        return self.chosen, self.rejected


class PairCounts(NamedTuple):
    """What became of the pairs of a file."""

    read: int
    kept: int
    dropped: int
    truncated: int
    identical: int
    refused: int = 0


def read_pairs(path: Path, limit: int = 0) -> list[Preference]:
    """Pairs of a file, the first `limit` of them where that is not 0. Raises DataError for a row without exactly one of each."""
    pairs = []
    for pair in read_jsonl(path, Preference):
        if len(pair.chosen) != 1 or len(pair.rejected) != 1:
            raise DataError(f"{path.name}: pair {pair.id!r}: a training pair has one chosen and one rejected reply")
        pairs.append(pair)
        if limit and len(pairs) == limit:
            break
    if not pairs:
        raise DataError(f"{path.name}: no pair at all; there is nothing to train on")
    return pairs


def conversation(prompt: Sequence[Message], reply: str) -> list[Message]:
    """The prompt's turns with the assistant's reply after them."""
    return [*prompt, Message(role="assistant", content=reply)]


def encode_pairs(
    pairs: Sequence[Preference],
    tokenizer: ConversationTokenizer,
    *,
    max_length: int,
    overlong: Overlong,
    refused_turns: RefusedTurns = "error",
) -> tuple[list[EncodedPair], PairCounts]:
    """Pairs as ids; a pair is dropped whole when one side is too long or refused by the template (`drop`), or both become the same ids."""
    encoded: list[EncodedPair] = []
    dropped = truncated = identical = refused = 0
    for start in range(0, len(pairs), ENCODE_AT_ONCE):
        part = pairs[start : start + ENCODE_AT_ONCE]
        rows = [conversation(pair.prompt, reply) for pair in part for reply in (pair.chosen[0], pair.rejected[0])]
        names = [f"pair {pair.id!r}" for pair in part for _ in range(2)]
        sides = tokenizer.encode_many(rows, max_length=max_length, overlong=overlong, names=names, refused_turns=refused_turns)
        for index, pair in enumerate(part):
            chosen, rejected = sides[2 * index], sides[2 * index + 1]
            if NO_IDS in (chosen, rejected):
                refused += 1
            elif not chosen.ids or not rejected.ids:
                dropped += 1
            elif chosen.ids == rejected.ids:
                identical += 1
            else:
                truncated += chosen.truncated or rejected.truncated
                encoded.append(EncodedPair(chosen.ids, rejected.ids, pair.id, start + index))
    if not encoded:
        told = f"{dropped} too long for max_length = {max_length}, {identical} with equal sides, {refused} refused by the chat template"
        raise DataError(f"no pair is left: {told}")
    counts = PairCounts(len(pairs), len(encoded), dropped=dropped, truncated=truncated, identical=identical, refused=refused)
    return encoded, counts


def in_validation(pair: Preference, *, fraction: float, seed: int) -> bool:
    """Whether a pair's prompt belongs to the validation split: by a hash of the prompt, so that no prompt is on both sides."""
    text = "\n".join(f"{message.role}: {message.content}" for message in pair.prompt)
    digest = hashlib.sha256(f"{seed}/{text}".encode()).hexdigest()
    return int(digest[:8], 16) < fraction * 16**8
