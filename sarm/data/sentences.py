"""Running text as token sequences with the positions whose hidden states an SAE is trained on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from sarm.data.preferences import DataError
from sarm.data.splitters import Split
from sarm.data.tokens import inner_punctuation_ids, leading_bos

DOCUMENTS_AT_ONCE = 64


class TextSequence(NamedTuple):
    """Token ids that are fed to the model, the positions that are kept, and the document's number in the corpus."""

    ids: list[int]
    kept: list[int]
    document: int


class Cursor(NamedTuple):
    """Where a pass over the corpus stands: the pass, and the next document in that pass's order."""

    epoch: int
    position: int


class SequenceRules(NamedTuple):
    """How sequences are cut from text; the fields of `SAETrainingConfig` of the same names."""

    tokens: Literal["last", "last-and-inner", "all"]
    context: Literal["sentence", "document"]
    min_tokens: int
    max_tokens: int
    latin1_only: bool


class Corpus:
    """`corpus.jsonl` read by document number, so that a shuffled pass never holds the text in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        offsets = [0]
        with path.open("rb") as lines:
            for line in lines:
                offsets.append(offsets[-1] + len(line))
        self._offsets = np.array(offsets[:-1], dtype=np.int64)
        if not len(self._offsets):
            raise DataError(f"{path.name}: the corpus is empty")

    def __len__(self) -> int:
        return len(self._offsets)

    def texts(self, documents: Sequence[int]) -> list[str]:
        """The texts of the named documents. Raises DataError for a line that is not a document."""
        found = []
        with self._path.open("rb") as lines:
            for document in documents:
                lines.seek(int(self._offsets[document]))
                try:
                    found.append(str(json.loads(lines.readline())["text"]))
                except (ValueError, KeyError, TypeError) as error:
                    place = f"{self._path.name}:{document + 1}"
                    raise DataError(f"{place}: no JSON object with a key 'text'; mend or remove the line") from error
        return found


class SentenceStream:
    """Sequences of a shuffled corpus, pass after pass. The order depends on the seed alone, so any cursor can be returned to."""

    def __init__(
        self, corpus: Corpus, tokenizer: Any, rules: SequenceRules, *, split: Split, seed: int, held_out: int = 0
    ) -> None:
        """`split` cuts a text into sentences.

        `held_out` documents (the first of the seed's order) are never given by `take`; `held_out_sequences` gives them.
        """
        self._corpus, self._tokenizer, self._rules, self._seed, self._split = corpus, tokenizer, rules, seed, split
        self._inner = inner_punctuation_ids(tokenizer) if rules.tokens == "last-and-inner" else frozenset()
        order = list(range(len(corpus)))
        random.Random(f"{seed}/held-out").shuffle(order)
        self._held_out, self._training = order[:held_out], sorted(order[held_out:])
        if not self._training:
            raise DataError(f"the corpus has {len(corpus)} documents, all of them held out; lower held_out_vectors or give more text")
        self._orders: dict[int, list[int]] = {}

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = list(self._training)
            random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._orders = {epoch: order}
        return self._orders[epoch]

    def take(self, cursor: Cursor, positions: int) -> tuple[list[TextSequence], Cursor]:
        """Sequences with at least `positions` kept positions from a cursor on, whole documents, and the cursor after them.

        Starts the next pass when the corpus ends. Raises DataError when a whole pass gives nothing.
        """
        taken: list[TextSequence] = []
        count, epoch, position, found_in_pass = 0, cursor.epoch, cursor.position, cursor.position > 0
        while count < positions:
            order = self._order(epoch)
            if position >= len(order):
                if not found_in_pass:
                    raise DataError("no sentence of the corpus passes min_tokens and the character rule; the SAE has nothing to train on")
                epoch, position, found_in_pass = epoch + 1, 0, False
                continue
            documents = order[position : position + DOCUMENTS_AT_ONCE]
            position += len(documents)
            for sequence in self._sequences(documents):
                taken.append(sequence)
                count += len(sequence.kept)
                found_in_pass = True
        return taken, Cursor(epoch, position)

    def held_out_sequences(self) -> list[TextSequence]:
        """All sequences of the held-out documents."""
        return self._sequences(self._held_out)

    def _sequences(self, documents: Sequence[int]) -> list[TextSequence]:
        sentences: list[str] = []
        owners: list[int] = []
        for document, text in zip(documents, self._corpus.texts(documents), strict=True):
            for sentence in self._split(text):
                stripped = str(sentence).strip()
                if stripped and not (self._rules.latin1_only and any(ord(character) > 0xFF for character in stripped)):
                    sentences.append(stripped)
                    owners.append(document)
        if not sentences:
            return []
        rows = self._tokenizer(sentences, add_special_tokens=False)["input_ids"]
        bos = leading_bos(self._tokenizer)
        if self._rules.context == "sentence":
            return self._alone(rows, owners, bos)
        return self._packed(rows, owners, bos)

    def _alone(self, rows: list[list[int]], owners: list[int], bos: list[int]) -> list[TextSequence]:
        sequences = []
        for row, owner in zip(rows, owners, strict=True):
            ids = (bos + row)[: self._rules.max_tokens]
            if row and len(ids) >= self._rules.min_tokens:
                sequences.append(TextSequence(ids, self._kept(ids, [len(ids) - 1]), owner))
        return sequences

    def _packed(self, rows: list[list[int]], owners: list[int], bos: list[int]) -> list[TextSequence]:
        sequences: list[TextSequence] = []
        ids: list[int] = []
        ends: list[int] = []
        current = -1
        for row, owner in [*zip(rows, owners, strict=True), ([], -1)]:
            if ids and (owner != current or len(ids) + len(row) > self._rules.max_tokens):
                if ends and len(ids) >= self._rules.min_tokens:
                    sequences.append(TextSequence(ids, self._kept(ids, ends), current))
                ids, ends = [], []
            if owner < 0 or not row:
                continue
            ids = (ids or list(bos)) + row
            ids = ids[: self._rules.max_tokens]
            ends = [*ends, len(ids) - 1]
            current = owner
        return sequences

    def _kept(self, ids: list[int], ends: list[int]) -> list[int]:
        if self._rules.tokens == "all":
            return list(range(len(ids)))
        if self._rules.tokens == "last":
            return ends
        return sorted(set(ends) | {index for index, token in enumerate(ids) if token in self._inner})
