"""Hidden states of text made by several processes, each from its share of the sequences, and put together in the order of the text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sarm.backbone.harvest import Harvest
from sarm.data.sentences import TextSequence
from sarm.engine.group import ProcessGroup


def places(kept: Sequence[int], processes: int) -> list[Tensor]:
    """For each process, which rows of the whole its own are: process r has the sequences r, r + processes, ...

    `kept` are the rows of each sequence.
    """
    starts = [0]
    for count in kept:
        starts.append(starts[-1] + count)
    rows = [range(starts[index], starts[index + 1]) for index in range(len(kept))]
    return [torch.tensor([row for one in rows[rank::processes] for row in one], dtype=torch.long) for rank in range(processes)]


def shared_states(harvest: Harvest, sequences: Sequence[TextSequence], group: ProcessGroup) -> dict[int, Tensor]:
    """As `Harvest.states`, in every process. Each runs the model on its share alone."""
    if group.size == 1:
        return harvest.states(sequences)
    where = places([len(sequence.kept) for sequence in sequences], group.size)
    whole = {}
    for layer, states in harvest.states(sequences[group.rank :: group.size]).items():
        parts = group.gathered_rows(states, [len(rows) for rows in where])
        whole[layer] = torch.empty(sum(map(len, where)), states.shape[1], dtype=states.dtype, device=states.device)
        for rows, part in zip(where, parts, strict=True):
            whole[layer][rows.to(states.device)] = part
    return whole
