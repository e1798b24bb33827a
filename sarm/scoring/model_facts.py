"""What a scored model is, however well it does: its size, how many latents its reward rests on, and the token that it is read at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sarm.reward.models import SARM, RewardModel
from sarm.scoring.inference import score_batch

# Rows whose latents are counted, and how many different scored tokens are told.
PROBED, TOLD = 64, 5


def model_facts(model: RewardModel, rows: Sequence[Sequence[int]], tokenizer: Any, *, pad_id: int, first_masked: bool) -> dict[str, Any]:
    """Facts that are the same on every machine, for rows of token ids that were scored; `tokenizer` is the transformers one.

    `features_active`: the most latents that a row's reward rests on, over the shortest rows; None where the head reads no TopK latents.
    `scored_tokens`: the most frequent last tokens of the rows, with how many rows end so.
    """
    last = Counter(row[-1] for row in rows).most_common(TOLD)
    return {
        "blocks": model.layer,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "features": model.score.in_features,
        "features_active": _most_active(model, rows, pad_id=pad_id, first_masked=first_masked),
        "scored_tokens": {str(tokenizer.convert_ids_to_tokens(token)): count for token, count in last},
    }


def _most_active(model: RewardModel, rows: Sequence[Sequence[int]], *, pad_id: int, first_masked: bool) -> int | None:
    if not isinstance(model, SARM) or model.latents != "topk" or not rows:
        return None
    shortest = sorted(range(len(rows)), key=lambda index: len(rows[index]))[:PROBED]
    features = score_batch(model, rows, shortest, pad_id=pad_id, first_masked=first_masked).features
    return int((features != 0).sum(-1).max())
