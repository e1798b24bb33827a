"""Edits of a head: whose they are, what they change, and that nothing of them stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from asked_models import write_sarm
from authors_checkpoints import random_sarm
from reward_model_folders import latent_head, saved

from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.steering import HeadEdit
from sarm.job import IntegrityProblem, UsageProblem
from sarm.reward.models import SARM
from sarm.reward.steering import Edit
from sarm.scoring.edited_head import edited_head, feature_factors, head_identity, scaled_head


def test_a_head_is_known_by_its_weights_and_latents_in_every_precision(tmp_path: Path) -> None:
    folder = write_sarm(tmp_path / "model")
    identity = head_identity(load_reward_model(folder), name="model")
    assert identity == head_identity(load_reward_model(folder, dtype=torch.bfloat16), name="model")
    assert (identity.n_latents, identity.layer) == (24, 2)
    model = load_reward_model(folder)
    with torch.no_grad():
        model.score.weight[0, 3] += 1e-6
    assert head_identity(model, name="model") != identity


def test_scaling_the_head_is_editing_the_latents_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = load_reward_model(write_sarm(tmp_path / "model"))
    assert isinstance(model, SARM)
    before = model.score.weight.detach().clone()
    pooled = torch.randn(6, model.sae.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = model.reward_of(model.features(pooled))
        with scaled_head(model, {3: 2.0, 7: 0.0, 11: -1.5}):
            scaled = model.reward_of(model.features(pooled))
        model.edits = {3: Edit("*", 2.0), 7: Edit("*", 0.0), 11: Edit("*", -1.5)}
        edited = model.reward_of(model.features(pooled))
    torch.testing.assert_close(scaled, edited)
    assert not torch.allclose(scaled, plain)
    assert torch.equal(model.score.weight, before)


def test_the_head_is_as_it_was_after_an_error_too(tmp_path: Path) -> None:
    model = load_reward_model(write_sarm(tmp_path / "model"))
    before = model.score.weight.detach().clone()
    with pytest.raises(RuntimeError), scaled_head(model, {3: 2.0}):
        raise RuntimeError
    assert torch.equal(model.score.weight, before)


def test_a_head_on_some_latents_is_scaled_by_their_own_numbers(tmp_path: Path) -> None:
    model = load_reward_model(latent_head(tmp_path))
    identity = head_identity(model, name="head")
    assert identity.n_latents == 24
    before = model.score.weight.detach().clone()
    # It reads 20, 3, 11, 7, 0, 15, in this order.
    with edited_head(model, HeadEdit(model=identity, factors={11: 3.0}), name="head"):
        assert model.score.weight[0, 2] == 3 * before[0, 2] and int((model.score.weight != before).sum()) == 1
    with pytest.raises(UsageProblem, match="latent 4: the head does not read it"):
        feature_factors({4: 2.0}, torch.tensor([20, 3]))


def test_an_edit_of_another_model_is_refused_and_of_one_without_latents(tmp_path: Path) -> None:
    model = load_reward_model(write_sarm(tmp_path / "model"))
    other = head_identity(load_reward_model(saved(tmp_path / "other", random_sarm())), name="other")
    edit = HeadEdit(model=other, factors={3: 2.0})
    with pytest.raises(IntegrityProblem, match=r"made for another model .* than model"), edited_head(model, edit, name="model"):
        pass
    dense = load_reward_model(latent_head(tmp_path / "hidden", 3))
    with pytest.raises(UsageProblem, match="needs a SARM or a linear head on latents"), edited_head(dense, edit, name="dense"):
        pass
    with edited_head(dense, None, name="dense"):
        pass
