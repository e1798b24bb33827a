"""Random pairs of token rows for small models of several families, and their rewards row by row."""

from __future__ import annotations

import torch

from sarm.data.pairs import EncodedPair
from sarm.reward.models import SARM

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
CPU = torch.device("cpu")


def pairs(seed: int = 0) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(1, 60, (count,), generator=generator).tolist()

    made = []
    for index, (prefix, chosen, rejected) in enumerate([(9, 4, 7), (0, 5, 3), (20, 1, 1), (3, 12, 2)]):
        head = ids(prefix)
        made.append(EncodedPair([*head, 60, *ids(chosen)], [*head, 61, *ids(rejected)], str(index)))
    return made


def rewards_alone(model: SARM, rows: list[list[int]]) -> torch.Tensor:
    return torch.cat([model(torch.tensor([row]), torch.tensor([len(row) - 1])).rewards for row in rows])
