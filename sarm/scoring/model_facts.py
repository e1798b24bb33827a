"""What a scored model is, however well it does: its size, how many latents its reward rests on, and the token that it is read at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sarm.reward.models import SARM, RewardModel
from sarm.scoring.inference import score_batch

# At most so many rows whose latents are counted, and so many different scored tokens are told.
PROBED, TOLD = 64, 5


def model_facts(
    model: RewardModel, rows: Sequence[Sequence[int]], tokenizer: Any, *, pad_id: int, batch_tokens: int, first_masked: bool
) -> dict[str, Any]:  # fmt: skip
    """Facts that are the same on every machine, for rows of token ids that were scored; `tokenizer` is the transformers one.

    `features_active`: the most latents that a row's reward rests on, over the shortest rows that fit into one forward pass of
    `batch_tokens` padded tokens; None where the head reads no TopK latents.
    `scored_tokens`: the most frequent last tokens of the rows, with how many rows end so.
    """
    last = Counter(row[-1] for row in rows).most_common(TOLD)
    probed = _shortest(rows, batch_tokens) if isinstance(model, SARM) and model.latents == "topk" else []
    return {
        "blocks": model.layer,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "features": model.score.in_features,
        "features_active": _most_active(model, rows, probed, pad_id=pad_id, first_masked=first_masked) if probed else None,
        "scored_tokens": {str(tokenizer.convert_ids_to_tokens(token)): count for token, count in last},
    }


def _shortest(rows: Sequence[Sequence[int]], batch_tokens: int) -> list[int]:
    """The shortest rows, as many as one pass holds: the longest of them is what all are padded to."""
    shortest = sorted(range(len(rows)), key=lambda index: len(rows[index]))[:PROBED]
    return [index for count, index in enumerate(shortest, start=1) if count == 1 or count * len(rows[index]) <= batch_tokens]


def _most_active(model: RewardModel, rows: Sequence[Sequence[int]], probed: Sequence[int], *, pad_id: int, first_masked: bool) -> int:
    features = score_batch(model, rows, probed, pad_id=pad_id, first_masked=first_masked).features
    return int((features != 0).sum(-1).max())
