"""Which latents carry a preference, and edits of them: pure math on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor


class Edit(NamedTuple):
    """`*` multiplies a latent (equal to scaling its head weight), `+` adds to it whether or not it is active."""

    action: Literal["*", "+"]
    value: float


class FeatureSums(NamedTuple):
    """Sums over pairs of the last token's latents, `[n_latents]` each."""

    chosen: Tensor
    rejected: Tensor


class Selection(NamedTuple):
    """The latent that each rule chooses; None where no latent meets the bound."""

    argmax_s: int
    bounded: int | None
    s_minus_t: int


def feature_scores_of_sums(sums: FeatureSums) -> Tensor:
    """s_i = (c_i - j_i) / (c_i + j_i + mean over all latents of (c + j)): `[n_latents]` twice to `[n_latents]`.

    Source: inference_for_latents.py:207-217; the paper leaves s_i undefined (section RM Preference Manipulation).
    """
    total = sums.chosen + sums.rejected
    return (sums.chosen - sums.rejected) / (total + total.mean())


def feature_scores(chosen_latents: Tensor, rejected_latents: Tensor) -> Tensor:
    """s_i of pairs: `[pairs, n_latents]` twice to `[n_latents]`. Raises ValueError without a pair."""
    if not len(chosen_latents) or not len(rejected_latents):
        raise ValueError("feature scores need at least one pair; the selection set is empty")
    return feature_scores_of_sums(FeatureSums(chosen_latents.sum(dim=0), rejected_latents.sum(dim=0)))


def select_latents(s: Tensor, t: Tensor, *, bound: float) -> Selection:
    """The three rules: largest s; largest s among |t| <= bound; largest s - |t|.

    t is the score by the same formula on the complement. Deviation: the released code keeps the plain sum c + j there and
    does not say how it is used.
    """
    allowed = t.abs() <= bound
    bounded = int(s.masked_fill(~allowed, float("-inf")).argmax()) if bool(allowed.any()) else None
    return Selection(argmax_s=int(s.argmax()), bounded=bounded, s_minus_t=int((s - t.abs()).argmax()))


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
