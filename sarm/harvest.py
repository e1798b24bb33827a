"""Hidden states of text at the positions that are kept: what SAEs are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sarm.data.sentences import TextSequence
from sarm.data.tokens import equal_length_batches
from sarm.job import UsageProblem
from sarm.model import hidden_states


class Harvest:
    """Hidden states of kept positions, in the order of the text: one forward pass for all layers that are wanted."""

    def __init__(self, backbone: PreTrainedModel, layers: Sequence[int], *, batch_tokens: int, device: torch.device) -> None:
        self._backbone, self._layers = backbone, sorted(set(layers))
        self._batch_tokens, self._device = batch_tokens, device

    @torch.inference_mode()
    def states(self, sequences: Sequence[TextSequence]) -> dict[int, Tensor]:
        """For each layer `[kept positions, hidden_size]`. Batches hold rows of one length, so nothing is padded.

        Raises UsageProblem that names the document of a state that is not finite.
        """
        starts = [0]
        for sequence in sequences:
            starts.append(starts[-1] + len(sequence.kept))
        width = self._backbone.config.hidden_size
        dtype = next(self._backbone.parameters()).dtype
        kept = {layer: torch.empty(starts[-1], width, dtype=dtype, device=self._device) for layer in self._layers}
        for batch in equal_length_batches([len(sequence.ids) for sequence in sequences], self._batch_tokens):
            ids = torch.tensor([sequences[index].ids for index in batch], device=self._device)
            rows = torch.tensor([row for row, index in enumerate(batch) for _ in sequences[index].kept], device=self._device)
            columns = torch.tensor([position for index in batch for position in sequences[index].kept], device=self._device)
            targets = torch.tensor(
                [starts[index] + offset for index in batch for offset in range(len(sequences[index].kept))], device=self._device
            )
            for layer, states in hidden_states(self._backbone, ids, self._layers).items():
                kept[layer][targets] = states[rows, columns]
        for states in kept.values():
            bad = (~torch.isfinite(states).all(dim=-1)).nonzero()
            if len(bad):
                owner = next(s.document for s, end in zip(sequences, starts[1:], strict=True) if int(bad[0]) < end)
                raise UsageProblem(f"corpus.jsonl:{owner + 1}: the model's hidden states are not finite on this document; remove it")
        return kept
