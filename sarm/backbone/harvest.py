"""Hidden states of text at the positions that are kept: what SAEs are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sarm.backbone.decoder import hidden_states, require_rows
from sarm.backbone.packed_forward import can_pack, packed_states
from sarm.backbone.packed_tokens import packed
from sarm.backbone.sending import sent
from sarm.data.sentences import TextSequence
from sarm.data.tokens import equal_length_batches
from sarm.job import UsageProblem


def corpus_line(document: int) -> str:
    """How a document of the corpus is called in a message."""
    return f"corpus.jsonl:{document + 1}"


class Harvest:
    """Hidden states of kept positions, in the order of the text: one forward pass for all layers that are wanted.

    Sequences are packed in one row by length, and the deepest block runs for the kept positions alone. A decoder whose blocks are
    not known to be plain (`can_pack`) gets batches of sequences of one length, so that nothing is padded there either.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        layers: Sequence[int],
        *,
        batch_tokens: int,
        device: torch.device,
        name: Callable[[int], str] = corpus_line,
    ) -> None:
        """`name` says how a document is called in a message, by its number."""
        self._backbone, self._layers, self._name = backbone, sorted(set(layers)), name
        self._batch_tokens, self._device = batch_tokens, device
        self._dtype = next(backbone.parameters()).dtype
        self._packs = can_pack(backbone)

    @torch.inference_mode()
    def states(self, sequences: Sequence[TextSequence]) -> dict[int, Tensor]:
        """For each layer `[kept positions, hidden_size]`.

        Raises UsageProblem that names the document of a sequence that the model cannot read, or of a state that is not finite.
        """
        names = (self._name(sequence.document) for sequence in sequences)
        require_rows(self._backbone, (sequence.ids for sequence in sequences), names, limit="max_tokens")
        starts = [0]
        for sequence in sequences:
            starts.append(starts[-1] + len(sequence.kept))
        width = self._backbone.config.hidden_size
        kept = {layer: torch.empty(starts[-1], width, dtype=self._dtype, device=self._device) for layer in self._layers}
        for batch, found in self._batches(sequences):
            rows = [starts[index] + offset for index in batch for offset in range(len(sequences[index].kept))]
            (targets,) = sent([torch.tensor(rows, dtype=torch.long)], self._device)
            for layer, states in found.items():
                kept[layer][targets] = states
        for states in kept.values():
            bad = (~torch.isfinite(states).all(dim=-1)).nonzero()
            if len(bad):
                owner = next(s.document for s, end in zip(sequences, starts[1:], strict=True) if int(bad[0]) < end)
                raise UsageProblem(f"{self._name(owner)}: the model's hidden states are not finite on this document; remove it")
        return kept

    def _batches(self, sequences: Sequence[TextSequence]) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
        """Numbers of sequences, and for each layer the states of their kept positions, sequence after sequence."""
        lengths = [len(sequence.ids) for sequence in sequences]
        if not self._packs:
            for batch in equal_length_batches(lengths, self._batch_tokens):
                yield batch, self._equal_lengths([sequences[index] for index in batch])
            return
        for batch in packed_by_length(lengths, self._batch_tokens):
            part = [sequences[index] for index in batch]
            ids, kept = [sequence.ids for sequence in part], [sequence.kept for sequence in part]
            row = packed(ids, [0] * len(part), kept, device=self._device, dtype=self._dtype)
            yield batch, packed_states(self._backbone, row, self._layers)

    def _equal_lengths(self, part: Sequence[TextSequence]) -> dict[int, Tensor]:
        numbers = [
            torch.tensor([sequence.ids for sequence in part]),
            torch.tensor([row for row, sequence in enumerate(part) for _ in sequence.kept], dtype=torch.long),
            torch.tensor([position for sequence in part for position in sequence.kept], dtype=torch.long),
        ]
        ids, rows, columns = sent(numbers, self._device)
        found = hidden_states(self._backbone, ids, self._layers)
        return {layer: states[rows, columns] for layer, states in found.items()}


def packed_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of at most `budget` tokens in all, shortest first; one beyond the budget is a batch of its own."""
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batches and tokens + lengths[index] <= budget:
            batches[-1].append(index)
            tokens += lengths[index]
        else:
            batches.append([index])
            tokens = lengths[index]
    return batches
