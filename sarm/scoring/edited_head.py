"""A reward head whose weights on some latents are scaled, and the identity by which an edit knows its model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from sarm.config.steering import HeadEdit, HeadIdentity
from sarm.job import IntegrityProblem, UsageProblem
from sarm.reward.models import SARM, RewardModel
from sarm.reward.sparse_model import SparseRewardModel
from sarm.reward.sparse_rm import Activations
from sarm.scoring.conversations import head_latents


def head_identity(model: RewardModel, *, name: str) -> HeadIdentity:
    """Which head this is. Raises UsageProblem that names the model where the reward is not linear in latents."""
    latents = head_latents(model, name=name)
    weights = model.score.weight[0].detach().to(device="cpu", dtype=torch.float32)
    content = latents.to(torch.int64).numpy().astype("<i8").tobytes() + weights.numpy().astype("<f4").tobytes()
    return HeadIdentity(head_sha256=hashlib.sha256(content).hexdigest(), n_latents=_width(model), layer=model.layer)


def _width(model: RewardModel) -> int:
    if isinstance(model, SparseRewardModel) and isinstance(model.head.reader, Activations):
        return int(model.head.reader.sae.n_latents)
    assert isinstance(model, SARM)
    return model.sae.n_latents


def require_same_head(edit: HeadEdit, model: RewardModel, *, name: str) -> None:
    """Raises UsageProblem for a model without latents, IntegrityProblem for an edit that was made for another head."""
    found = head_identity(model, name=name)
    if found != edit.model:
        raise IntegrityProblem(
            f"--steer: the steering file was made for another model (head {edit.model.head_sha256[:12]}, {edit.model.n_latents} latents, "
            f"layer {edit.model.layer}) than {name} (head {found.head_sha256[:12]}, {found.n_latents} latents, layer {found.layer}); "
            "take it with its own model, or make one for this with: replicate demo --model DIR"
        )


def feature_factors(factors: Mapping[int, float], latents: Tensor) -> dict[int, float]:
    """The factor of each of the head's features, by its place. Raises UsageProblem for a latent that the head does not read."""
    places = {latent: place for place, latent in enumerate(latents.tolist())}
    unread = next((latent for latent in factors if latent not in places), None)
    if unread is not None:
        raise UsageProblem(f"latent {unread}: the head does not read it (it reads {len(places)} latents), so it cannot be scaled")
    return {places[latent]: factor for latent, factor in factors.items()}


@contextmanager
def scaled_head(model: RewardModel, factors: Mapping[int, float]) -> Iterator[None]:
    """While it lasts, the head's weights on these features (by place) are multiplied, in float32; then they are as before, to the bit."""
    weight = model.score.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            for place, factor in factors.items():
                weight[0, place] *= factor
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


@contextmanager
def edited_head(model: RewardModel, edit: HeadEdit | None, *, name: str) -> Iterator[None]:
    """While it lasts, the head is edited; with None it is as trained. Raises as `require_same_head` and `feature_factors`."""
    if edit is None:
        yield
        return
    require_same_head(edit, model, name=name)
    with scaled_head(model, feature_factors(edit.factors, head_latents(model, name=name))):
        yield
