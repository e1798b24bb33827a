"""The geometry of an authors' checkpoint, from its config or from its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import RUN, random_sarm, save_authors
from torch import Tensor

from sarm.checkpoints.reward_models.layouts import import_authors_checkpoint, load_reward_model
from sarm.checkpoints.sarm_geometry import geometry_in_config, geometry_in_name
from sarm.job import JobError, UsageProblem
from sarm.reward.models import SARM, RewardModel

IDS = torch.tensor([[0, 9, 10, 4, 5], [0, 11, 12, 13, 4]])
LAST = torch.tensor([3, 4])


def rewards(model: RewardModel) -> Tensor:
    with torch.no_grad():
        return model(IDS, LAST).rewards


NESTED = {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sae_use_sequence_level": True}
CONVENTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "sarm_param": ({"sarm_param": {**NESTED, "sarm_use_activation": True}}, "topk"),
    "sarm_param without activation": ({"sarm_param": {**NESTED, "sarm_use_activation": False}}, "pre_acts"),
    "sarm_param of the older name": ({"sarm_param": {**NESTED, "sarm_use_topk": False}}, "pre_acts"),
    "flat": ({"sae_hidden_state_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_topk": True}, "topk"),
    "flat without topk": ({"sae_hidden_state_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_topk": False}, "pre_acts"),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_authors_geometry_is_read_from_the_config(tmp_path: Path, convention: str) -> None:
    config, latents = CONVENTIONS[convention]
    model = random_sarm(latents)
    loaded = load_reward_model(save_authors(tmp_path / "run", model, config))
    assert isinstance(loaded, SARM) and (loaded.latents, loaded.sae.k, loaded.layer) == (latents, 4, 2)
    assert torch.equal(rewards(loaded), rewards(model))


def test_authors_layer_defaults_to_half_the_blocks() -> None:
    geometry = geometry_in_config({"num_hidden_layers": 32, "sarm_param": {"sae_latent_size": 65536, "sae_k": 192}})
    assert geometry is not None and (geometry.layer, geometry.latents) == (16, "topk")
    assert geometry_in_config({"num_hidden_layers": 32}) is None
    with pytest.raises(UsageProblem, match="sarm_param has no 'sae_k'"):
        geometry_in_config({"num_hidden_layers": 32, "sarm_param": {"sae_latent_size": 65536}})


def test_wotopk_in_a_directory_name_is_not_topk() -> None:
    assert geometry_in_name(RUN.format("TopK")).latents == "topk"
    assert geometry_in_name(RUN.format("woTopK")).latents == "pre_acts"
    with pytest.raises(UsageProblem, match="says neither -SARM-TopK- nor -SARM-woTopK-"):
        geometry_in_name(RUN.format("Other"))
    with pytest.raises(UsageProblem, match=r"no geometry in config.json and no _Latent"):
        geometry_in_name("checkpoint-150")


@pytest.mark.parametrize("part", ["", "checkpoint-150"])
@pytest.mark.parametrize(("name", "latents"), [("TopK", "topk"), ("woTopK", "pre_acts")])
def test_run_whose_name_alone_says_its_geometry_is_imported_once(tmp_path: Path, name: str, latents: str, part: str) -> None:
    model = random_sarm(latents)
    folder = save_authors(tmp_path / RUN.format(name) / part, model, {})
    with pytest.raises(UsageProblem, match=r"no SAE geometry; rewrite it once with sarm\.import_authors_checkpoint"):
        load_reward_model(folder)
    import_authors_checkpoint(folder, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["latents"] == latents
    assert torch.equal(rewards(load_reward_model(tmp_path / "ours")), rewards(model))


def test_geometry_that_does_not_fit_the_tensors_is_refused(tmp_path: Path) -> None:
    config = {"sarm_param": {**NESTED, "sae_latent_size": 32}}
    with pytest.raises(UsageProblem, match=r"run: tensor '.*' has shape \[.*24.*\], the config asks for \[.*32.*\]"):
        load_reward_model(save_authors(tmp_path / "run", random_sarm(), config))
    config = {"sarm_param": {**NESTED, "sae_k": 25}}
    with pytest.raises(JobError, match="k = 25 must lie between 1 and n_latents = 24"):
        load_reward_model(save_authors(tmp_path / "other", random_sarm(), config))
