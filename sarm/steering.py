"""Which latents carry a preference, and edits of them: pure math on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor


class Edit(NamedTuple):
    """`*` multiplies a latent (equal to scaling its head weight), `+` adds to it whether or not it is active."""

    action: Literal["*", "+"]
    value: float


def feature_scores(chosen_latents: Tensor, rejected_latents: Tensor) -> Tensor:
    """s_i = (c_i - j_i) / (c_i + j_i + mean over all latents of (c + j)), with sums over pairs at the last token.

    Shapes: `[pairs, n_latents]` twice to `[n_latents]`. Raises ValueError without a pair.
    Source: inference_for_latents.py:207-217; the paper leaves s_i undefined (section RM Preference Manipulation).
    """
    if not len(chosen_latents) or not len(rejected_latents):
        raise ValueError("feature scores need at least one pair; the selection set is empty")
    chosen, rejected = chosen_latents.sum(dim=0), rejected_latents.sum(dim=0)
    total = chosen + rejected
    return (chosen - rejected) / (total + total.mean())


def steer(latents: Tensor, edits: Mapping[int, Edit]) -> Tensor:
    """Edited copy of `[..., n_latents]`.

    Raises ValueError for a latent outside the width. Source: inference_with_steering.py:84-92.
    """
    edited = latents.clone()
    for latent, edit in edits.items():
        if not 0 <= latent < latents.shape[-1]:
            raise ValueError(f"latent {latent} does not exist; the dictionary has {latents.shape[-1]}")
        if edit.action == "*":
            edited[..., latent] = edited[..., latent] + edited[..., latent] * (edit.value - 1)
        else:
            edited[..., latent] = edited[..., latent] + edit.value
    return edited
