"""SAEs as they are saved, and the authors' `.pt` files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sae
from tensor_damage import add, drop, reshape
from tiny import HIDDEN, edit_tensors

from sarm.checkpoints.saes.files import import_authors_sae, load_sae, save_sae
from sarm.job import EnvironmentProblem, UsageProblem


def test_sae_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    sae = random_sae()
    save_sae(tmp_path, sae, layer=7)
    loaded, geometry = load_sae(tmp_path)
    assert (geometry.layer, geometry.hidden_size, geometry.n_latents, geometry.k, geometry.standardize) == (7, HIDDEN, 24, 4, True)
    assert all(torch.equal(value, sae.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert load_sae(tmp_path, torch.bfloat16)[0].pre_bias.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop("latent_bias"), "tensor 'latent_bias' is missing"),
        (reshape("encoder.weight"), r"tensor 'encoder\.weight' has shape \[3, 16\], the geometry asks for \[24, 16\]"),
        (add("threshold"), "unknown tensor 'threshold'"),
    ],
)
def test_wrong_sae_tensor_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    save_sae(tmp_path, random_sae(), layer=1)
    edit_tensors(tmp_path / "sae.safetensors", change)
    with pytest.raises(UsageProblem, match=complaint):
        load_sae(tmp_path)


def test_folder_without_an_sae_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no sae\.json; this is not an SAE artifact"):
        load_sae(tmp_path)
    save_sae(tmp_path, random_sae(), layer=1)
    (tmp_path / "sae.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UsageProblem, match=r"sae\.safetensors: damaged safetensors file"):
        load_sae(tmp_path)


def test_authors_pt_of_plain_tensors_is_imported_with_the_geometry_of_its_name(tmp_path: Path) -> None:
    sae, path = random_sae(), tmp_path / "Llama-3.1-8B-Instruct_sequence_Latent24_Layer16_K4_1B.pt"
    torch.save(sae.state_dict(), path)
    loaded, geometry = import_authors_sae(path)
    assert (geometry.layer, geometry.n_latents, geometry.k) == (16, 24, 4)
    assert torch.equal(loaded.encoder.weight, sae.encoder.weight)
    narrow = shutil.copy(path, tmp_path / "x_Latent25_Layer16_K4_1B.pt")
    with pytest.raises(UsageProblem, match=r"tensor 'latent_bias' has shape \[24\], the geometry asks for \[25\]"):
        import_authors_sae(Path(narrow))
    with pytest.raises(UsageProblem, match="k = 99 must lie between 1 and the width 24"):
        import_authors_sae(Path(shutil.copy(path, tmp_path / "x_Latent24_Layer16_K99_1B.pt")))
    with pytest.raises(UsageProblem, match="the name carries no _Latent<M>_Layer<l>_K<k>_"):
        import_authors_sae(Path(shutil.copy(path, tmp_path / "sae.pt")))


class Malice:
    """A pickle that would run code."""

    ran: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[Any, ...]:
        return Malice.ran.append, ("owned",)


@pytest.mark.parametrize("how", ["torch", "pickle", "number", "garbage"])
def test_pt_that_is_more_than_tensors_is_refused_and_nothing_runs(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x_Latent24_Layer16_K4_1B.pt"
    if how == "torch":
        torch.save({**random_sae().state_dict(), "evil": Malice()}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"evil": Malice()}, protocol=2))
    elif how == "number":
        torch.save({**random_sae().state_dict(), "step": 3}, path)
    else:
        path.write_bytes(b"no weights")
    with pytest.raises(UsageProblem, match="not a file of plain tensors; convert it to safetensors, pickles are not loaded"):
        import_authors_sae(path)
    assert Malice.ran == []
