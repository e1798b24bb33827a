"""SAEs for Python users: each layout against its own library's numbers, ours, the authors', and those inside reward models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import random_sae, random_sarm, save_authors
from folders import FIXTURES
from foreign_sae_files import DICTIONARIES, HIDDEN, LATENTS, LLAMA_SCOPE, SAE_LENS, every_layout, inputs, ours, tensors, write_sae_lens
from tiny import HIDDEN as WIDTH
from tiny import edit_json, llama_config, save_backbone

from sarm import EnvironmentProblem, LoadedSAE, UsageProblem, load_sae
from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.checkpoints.saes.files import save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae, save_sparse_encoder
from sarm.checkpoints.saes.sae_lens import export_sae_lens
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

KINDS = [
    *(f"sae_lens-{name}" for name in (*SAE_LENS, "topk-before-6")),
    "sparsify-topk",
    *(f"dictionary_learning-{name}" for name in DICTIONARIES),
    *(f"llama_scope-{name}" for name in LLAMA_SCOPE),
    "gemma_scope-jumprelu",
]
GEOMETRY = {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_activation": True}}


def close(found: torch.Tensor, expected: Any, tolerance: float = 5e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=tolerance, atol=tolerance)


def own(folder: Path, sae: TopKSAE) -> Path:
    folder.mkdir()
    save_sae(folder, sae, layer=2)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_every_layout_encodes_and_decodes_as_its_library(name: str, tmp_path: Path) -> None:
    layout, kind = name.split("-", 1)
    numbers = json.loads((FIXTURES / "saes" / f"{layout}.json").read_text())[kind]
    sae = load_sae(every_layout(tmp_path)[name])
    found = sae.encode(inputs())
    close(found.latents, numbers["latents"])
    # lm_saes gives the reconstruction on the scale of its normalised input, the others on that of the input.
    reconstruction = sae.decode(found.latents) if layout == "llama_scope" else sae.reconstruct(inputs())
    close(reconstruction, numbers["reconstruction"])
    assert (sae.hidden_size, sae.n_latents, sae.layer) == (HIDDEN, LATENTS, 3 if kind == "topk-before-6" else 4)
    selects = "topk" in kind.lower() and kind not in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE", "topk-by-threshold")
    assert sae.k == (4 if selects else 0)
    assert not found.latents.requires_grad and not reconstruction.requires_grad


def inside_ours(folder: Path) -> Path:
    save_reward_model(folder / "sarm", random_sarm(), encoder="sae", tokenizer=None)
    return folder / "sarm"


def as_one_file(folder: Path) -> Path:
    path = folder / "Llama_sequence_Latent24_Layer2_K4_1B.pt"
    torch.save(random_sae().state_dict(), path)
    return path


OWN: dict[str, Callable[[Path], Path]] = {
    "ours": lambda folder: own(folder / "sae", random_sae()),
    "authors-file": as_one_file,
    "inside ours": inside_ours,
    "inside the authors'": lambda folder: save_authors(folder / "run", random_sarm(), GEOMETRY),
}


@pytest.mark.parametrize("kind", OWN)
def test_our_saes_and_the_authors_are_the_same_wherever_they_lie(kind: str, tmp_path: Path) -> None:
    sae, sound = load_sae(str(OWN[kind](tmp_path))), random_sae()
    assert (sae.layer, sae.k, sae.layout) == (2, 4, kind if kind in ("ours", "authors-file") else "checkpoint")
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0)) * 3 + 1
    encoding = sae.encode(x)
    expected = sound.encode(sound.prepare(x))
    assert torch.equal(encoding.latents, expected.latents) and torch.equal(encoding.pre_acts, expected.pre_acts)
    assert encoding.latents.shape == (2, 5, 24) and bool((encoding.latents != 0).sum(dim=-1).eq(4).all())
    assert torch.equal(sae.decode(encoding.latents), sound.decode(expected.latents))


def test_a_raw_sae_of_ours_inside_a_sarm_keeps_its_scale(tmp_path: Path) -> None:
    sae = TopKSAE(hidden_size=WIDTH, n_latents=24, k=4, standardizes=False)
    sae.reset(torch.Generator().manual_seed(0))
    save_reward_model(tmp_path / "sarm", SARM(truncated_backbone(llama_config(), 2), sae), encoder="sae", tokenizer=None)
    x = torch.randn(3, WIDTH) * 7
    assert torch.equal(load_sae(tmp_path / "sarm").encode(x).latents, sae.encode(x).latents)


def test_an_imported_sae_is_the_same_in_our_files_and_inside_a_sarm(tmp_path: Path) -> None:
    found = read_foreign_sae(write_sae_lens(tmp_path / "lens", "jumprelu"))
    save_sparse_encoder(tmp_path / "imported", found)
    model = SARM(truncated_backbone(llama_config(hidden_size=HIDDEN), 2), found.sae)
    save_reward_model(tmp_path / "sarm", model, encoder="sae", tokenizer=None)
    theirs = load_sae(tmp_path / "lens")
    for place, layout, layer in ((tmp_path / "imported", "SAELens", 4), (tmp_path / "sarm", "checkpoint", 2)):
        sae = load_sae(place)
        assert (sae.layout, sae.layer, sae.k) == (layout, layer, 0)
        assert torch.equal(sae.encode(inputs()).latents, theirs.encode(inputs()).latents)


def test_a_reconstruction_is_on_the_scale_of_the_hidden_states_it_was_made_from(tmp_path: Path) -> None:
    """An SAE that can express everything gives back what it got, although it sees standardised states."""
    sae = TopKSAE(hidden_size=WIDTH, n_latents=2 * WIDTH, k=2 * WIDTH)
    with torch.no_grad():
        eye = torch.eye(WIDTH)
        sae.encoder.weight.copy_(torch.cat([eye, -eye]) / 2)
        sae.decoder.weight.copy_(torch.cat([eye, -eye], dim=1))
        for bias in (sae.pre_bias, sae.latent_bias):
            bias.zero_()
    loaded = load_sae(own(tmp_path / "sae", sae))
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2)) * 11 + 5
    close(loaded.reconstruct(x), x, 1e-4)
    normalised = loaded.decode(loaded.encode(x).latents)
    close(normalised.mean(dim=-1), torch.zeros(4), 1e-4)


def test_what_is_given_may_have_any_precision_and_shape(tmp_path: Path) -> None:
    sae = load_sae(own(tmp_path / "sae", random_sae()), dtype=torch.bfloat16)
    found = sae.encode(torch.randn(WIDTH, dtype=torch.float64))
    assert found.latents.shape == (24,) and found.latents.dtype == torch.bfloat16
    assert sae.reconstruct(torch.randn(2, 1, WIDTH)).shape == (2, 1, WIDTH)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sae.layer = 3  # type: ignore[misc]
    assert "module" not in repr(sae)


@pytest.mark.parametrize("shape", [(), (3,), (WIDTH, 3)])
def test_another_width_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    sae = load_sae(own(tmp_path / "sae", random_sae()))
    for ask, width in ((sae.encode, WIDTH), (sae.reconstruct, WIDTH), (sae.decode, 24)):
        with pytest.raises(UsageProblem, match=rf"sae: .* of shape \[.*\]; this SAE takes {width} numbers in the last axis"):
            ask(torch.zeros(shape))


def harmed(folder: Path, harm: Callable[[Path], Any]) -> Path:
    harm(own(folder / "sae", random_sae()))
    return folder / "sae"


WRONG: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "absent": (lambda folder: folder / "none", EnvironmentProblem, "none: no such file or folder; give the folder of an SAE"),
    "empty": (lambda folder: folder, UsageProblem, r"not an SAE layout that we read \(SAELens: cfg\.json"),
    "language model": (lambda folder: save_backbone(folder / "lm"), UsageProblem, r"lm: no tensors named 'sae\.\*'; give a SARM"),
    "authors' folder": (
        lambda folder: as_one_file(folder).parent,
        UsageProblem,
        r"an SAE of the authors is one file; give its path, for example .*_Latent24_Layer2_K4_1B\.pt",
    ),
    "settings": (
        lambda folder: harmed(folder, lambda sae: (sae / "sae.json").write_text("{")),
        UsageProblem,
        r"sae/sae\.json: not JSON .*; fetch it again",
    ),
    "no k": (
        lambda folder: harmed(folder, lambda sae: edit_json(sae / "sae.json", k=None)),
        UsageProblem,
        r"sae/sae\.json: k: Field required; make or fetch it again",
    ),
    "no weights": (
        lambda folder: harmed(folder, lambda sae: (sae / "sae.safetensors").unlink()),
        EnvironmentProblem,
        r"sae: no sae\.safetensors beside sae\.json",
    ),
    "other width": (
        lambda folder: harmed(folder, lambda sae: edit_json(sae / "sae.json", n_latents=25)),
        UsageProblem,
        r"sae: tensor '.*' has shape \[.*24.*\], the geometry asks for \[.*25.*\]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_sae_is_told_with_the_next_step(name: str, tmp_path: Path) -> None:
    make, kind, complaint = WRONG[name]
    with pytest.raises(kind, match=complaint):
        load_sae(make(tmp_path))


def test_our_export_to_another_library_opens_here_too(tmp_path: Path) -> None:
    export_sae_lens(tmp_path / "lens", ours(), layer=4, model_name="tiny")
    sae: LoadedSAE = load_sae(tmp_path / "lens")
    assert sae.layout == "SAELens" and sae.module.encoder.weight.shape == tensors()["encoder"].shape
