"""SAEs of other projects: each layout against its own library's encode, what is refused, and our exports opened by theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import FIXTURES
from foreign_sae_files import (
    DICTIONARIES,
    HIDDEN,
    LATENTS,
    LLAMA_SCOPE,
    SAE_LENS,
    K,
    every_layout,
    inputs,
    ours,
    write_dictionary,
    write_gemma_scope,
    write_llama_scope,
    write_sae_lens,
    write_sparsify,
)
from safetensors.torch import load_file
from tiny import edit_json, edit_tensors, llama_config
from transformers import AutoConfig

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.saes.foreign import checked_fit, holds_sparse_encoder, load_sparse_encoder, read_foreign_sae, save_sparse_encoder
from sarm.checkpoints.saes.sae_lens import export_sae_lens
from sarm.checkpoints.saes.sparsify import export_sparsify
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.reward.models import SARM
from sarm.sae.sparse_encoder import SparseEncoder

KINDS = [
    *(f"sae_lens-{name}" for name in (*SAE_LENS, "topk-before-6")),
    "sparsify-topk",
    *(f"dictionary_learning-{name}" for name in DICTIONARIES),
    *(f"llama_scope-{name}" for name in LLAMA_SCOPE),
    "gemma_scope-jumprelu",
]


def expected(name: str) -> dict[str, Any]:
    """The library's numbers for one kind."""
    layout, kind = name.split("-", 1)
    found: dict[str, Any] = json.loads((FIXTURES / "saes" / f"{layout}.json").read_text())[kind]
    return found


def assert_close(ours: torch.Tensor, theirs: list[list[float]], tolerance: float = 2e-6) -> None:
    """Equal up to float32 rounding."""
    torch.testing.assert_close(ours.detach(), torch.tensor(theirs), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_latents_and_reconstruction_equal_the_librarys(name: str, tmp_path: Path) -> None:
    numbers = expected(name)
    imported = read_foreign_sae(every_layout(tmp_path)[name])
    sae, x = imported.sae, inputs()
    latents = sae.encode(sae.prepare(x)).latents
    assert_close(latents, numbers["latents"])
    decoded = sae.decode(latents)
    # lm_saes gives the reconstruction on the scale of its normalised input, SAELens on that of the input.
    assert_close(decoded if name.startswith("llama_scope") else sae.restore(decoded, x), numbers["reconstruction"], 5e-6)
    assert imported.layer == (3 if name == "sae_lens-topk-before-6" else 4)


def test_only_the_conventions_that_coincide_give_equal_latents() -> None:
    by_latents: dict[str, set[str]] = {}
    for name in KINDS:
        rows = [[round(value, 4) + 0.0 for value in row] for row in expected(name)["latents"]]
        by_latents.setdefault(json.dumps(rows), set()).add(name)
    assert sorted(sorted(names) for names in by_latents.values() if len(names) > 1) == [
        ["dictionary_learning-AutoEncoderTopK", "sae_lens-topk", "sae_lens-topk-before-6", "sparsify-topk"],
        ["dictionary_learning-BatchTopKSAE", "dictionary_learning-MatryoshkaBatchTopKSAE"],
        ["dictionary_learning-JumpReluAutoEncoder", "gemma_scope-jumprelu", "sae_lens-jumprelu"],
        ["llama_scope-relu", "sae_lens-standard"],
        ["llama_scope-topk", "sae_lens-topk-rescaled"],
    ]


@pytest.mark.parametrize("name", KINDS)
def test_a_saved_import_opens_as_it_was(name: str, tmp_path: Path) -> None:
    imported = read_foreign_sae(every_layout(tmp_path / "theirs")[name])
    save_sparse_encoder(tmp_path / "ours", imported)
    assert holds_sparse_encoder(tmp_path / "ours")
    again = load_sparse_encoder(tmp_path / "ours")
    assert (again.layer, again.layout) == (imported.layer, imported.layout)
    x = inputs()
    assert torch.equal(again.sae.encode(again.sae.prepare(x)).latents, imported.sae.encode(imported.sae.prepare(x)).latents)
    assert load_sparse_encoder(tmp_path / "ours", torch.bfloat16).sae.encoder.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["gemma_scope-jumprelu", "sae_lens-topk-rescaled"])
def test_an_imported_encoder_stands_in_a_sarm_and_is_saved_with_it(name: str, tmp_path: Path) -> None:
    sae = read_foreign_sae(every_layout(tmp_path)[name]).sae
    backbone = truncated_backbone(llama_config(hidden_size=HIDDEN), 2)
    model = SARM(backbone, sae).eval()
    output = model(torch.tensor([[0, 8, 9, 4]]), torch.tensor([3]))
    pooled = output.hidden_states[:, 3]
    assert output.features is not None and torch.equal(output.features, sae.encode(sae.prepare(pooled)).latents)
    save_reward_model(tmp_path / "sarm", model, encoder="sae", tokenizer=None)
    again = load_reward_model(tmp_path / "sarm")
    assert isinstance(again, SARM) and isinstance(again.sae, SparseEncoder) and again.sae.convention == sae.convention
    assert torch.equal(again(torch.tensor([[0, 8, 9, 4]]), torch.tensor([3])).rewards, output.rewards)
    with pytest.raises(ValueError, match="sarm_imported"):
        AutoConfig.from_pretrained(tmp_path / "sarm")


@pytest.mark.parametrize(("name", "standardizes"), [("sae_lens-plain", False), ("sae_lens-standardized", True), ("sparsify-plain", False)])
def test_our_export_is_what_the_library_opened_and_encodes_the_same(name: str, standardizes: bool, tmp_path: Path) -> None:
    numbers = expected(f"exports-{name}")
    sae, x = ours(standardizes=standardizes), inputs()
    if name.startswith("sparsify"):
        export_sparsify(tmp_path, sae)
    else:
        export_sae_lens(tmp_path, sae, layer=4, model_name="tiny")
    assert json.loads((tmp_path / "cfg.json").read_text()) == numbers["config"]
    latents = sae.encode(sae.prepare(x)).latents
    # SAELens and sparsify set the negative ones among the k largest to 0; ours keeps them. The epsilons differ, too.
    assert_close(latents.relu(), numbers["latents"], 5e-5 if standardizes else 2e-6)
    back = read_foreign_sae(tmp_path).sae
    torch.testing.assert_close(back.encode(back.prepare(x)).latents, latents.relu(), rtol=5e-5, atol=5e-5)


def test_a_jumprelu_export_keeps_its_threshold(tmp_path: Path) -> None:
    sae = read_foreign_sae(write_gemma_scope(tmp_path / "theirs")).sae
    export_sae_lens(tmp_path / "ours", sae, layer=4, model_name="tiny")
    back = read_foreign_sae(tmp_path / "ours")
    assert torch.equal(back.sae.threshold, sae.threshold) and back.layer == 4
    assert torch.equal(back.sae.encode(inputs()).latents, sae.encode(inputs()).latents)
    with pytest.raises(UsageProblem, match="export to SAELens instead"):
        export_sparsify(tmp_path / "sparsify", sae)


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    """An edit of one JSON file of a folder."""
    return lambda folder: edit_json(folder / file, **changes)


@pytest.mark.parametrize(
    ("write", "change", "message"),
    [
        (lambda f: write_sae_lens(f, "topk"), edit("cfg.json", architecture="gated"), r"cfg\.json: architecture 'gated'"),
        (lambda f: write_sae_lens(f, "topk"), edit("cfg.json", k=None), "k = 0 does not go"),
        (lambda f: write_sae_lens(f, "topk"), edit("cfg.json", normalize_activations="expected_average_only_in"), r"cfg\.json: .*not hold"),
        (lambda f: write_sae_lens(f, "topk"), edit("cfg.json", reshape_activations="hook_z"), r"cfg\.json: .*residual stream"),
        (lambda f: write_sae_lens(f, "topk-before-6"), edit("cfg.json", finetuning_scaling_factor=True), r"cfg\.json: finetuning"),
        (lambda f: write_sae_lens(f, "topk-before-6"), edit("cfg.json", activation_fn_str="tanh-relu"), "standard with tanh-relu"),
        (lambda f: write_sae_lens(f, "topk-before-6"), edit("cfg.json", hook_name="blocks.3.hook_mlp_out"), r"cfg\.json: .*hook_mlp_out"),
        (write_sparsify, edit("cfg.json", transcode=True), r"cfg\.json: transcode is on"),
        (write_sparsify, edit("cfg.json", activation="groupmax"), r"cfg\.json: activation 'groupmax'"),
        (
            lambda f: write_dictionary(f, "AutoEncoder"),
            edit("config.json", trainer={"dict_class": "GatedAutoEncoder"}),
            r"config\.json: .*GatedAutoEncoder",
        ),
        (lambda f: write_dictionary(f, "AutoEncoderTopK"), edit("config.json", trainer={"dict_class": "AutoEncoderTopK", "k": 5}), "k = 5"),
        (lambda f: write_llama_scope(f, "jumprelu"), edit("hyperparams.json", use_glu_encoder=True), r"hyperparams\.json: .*GLU"),
        (
            lambda f: write_llama_scope(f, "jumprelu"),
            edit("hyperparams.json", norm_activation="batch-wise"),
            r"hyperparams\.json: .*batch-wise",
        ),
        (
            lambda f: write_llama_scope(f, "jumprelu"),
            edit("hyperparams.json", dataset_average_activation_norm=None),
            r"hyperparams\.json: .*scale is lost",
        ),
        (
            lambda f: write_llama_scope(f, "jumprelu"),
            edit("hyperparams.json", hook_point_out="blocks.3.hook_mlp_out"),
            r"hyperparams\.json: .*transcoder",
        ),
        (lambda f: write_llama_scope(f, "jumprelu"), edit("hyperparams.json", jump_relu_threshold=-1.0), r"hyperparams\.json: .*below 0"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    write: Callable[[Path], Path], change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "sae")
    change(folder)
    with pytest.raises(UsageProblem, match=message):
        read_foreign_sae(folder)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    folder = write_sae_lens(tmp_path / "lens", "jumprelu")
    weights = folder / "sae_weights.safetensors"
    edit_tensors(weights, lambda found: found.update(W_gate=torch.zeros(2)))
    with pytest.raises(UsageProblem, match="unknown tensor 'W_gate'"):
        read_foreign_sae(folder)
    edit_tensors(weights, lambda found: found.update(b_enc=torch.zeros(3)) or found.pop("W_gate").sum())
    with pytest.raises(UsageProblem, match=r"'latent_bias' has shape \[3\], the encoder asks for \[24\]"):
        read_foreign_sae(folder)
    edit_tensors(weights, lambda found: found.pop("b_enc").sum())
    with pytest.raises(UsageProblem, match=r"sae_weights\.safetensors: no tensor for 'latent_bias'"):
        read_foreign_sae(folder)
    edit_tensors(weights, lambda found: found.pop("W_enc").sum())
    with pytest.raises(UsageProblem, match="encoder's weight is missing"):
        read_foreign_sae(folder)


def test_pickles_damaged_files_and_unknown_folders_are_refused(tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path / "ae", "AutoEncoder")
    torch.save({"encoder": Path("x")}, folder / "ae.pt")
    with pytest.raises(UsageProblem, match=r"ae\.pt: not a file of plain tensors"):
        read_foreign_sae(folder)
    place = write_gemma_scope(tmp_path / "gemma")
    np.savez(place / "params.npz", W_enc=np.array([object()], dtype=object))
    with pytest.raises(UsageProblem, match="pickles are not loaded"):
        read_foreign_sae(place / "params.npz")
    (place / "params.npz").write_bytes(b"PK not a zip")
    with pytest.raises(UsageProblem, match="not an archive"):
        read_foreign_sae(place)
    lens = write_sae_lens(tmp_path / "lens", "topk")
    (lens / "cfg.json").write_text("{")
    with pytest.raises(UsageProblem, match="not JSON"):
        read_foreign_sae(lens)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageProblem, match="not an SAE layout that we read"):
        read_foreign_sae(tmp_path / "empty")
    with pytest.raises(EnvironmentProblem, match="nowhere: no such file"):
        read_foreign_sae(tmp_path / "nowhere")


def test_an_sae_of_another_width_or_layer_is_refused(tmp_path: Path) -> None:
    imported = read_foreign_sae(write_gemma_scope(tmp_path))
    checked_fit(imported, hidden_size=HIDDEN, layer=4, what="sae")
    with pytest.raises(UsageProblem, match="reads 8 numbers a token, the model's states have 16"):
        checked_fit(imported, hidden_size=16, layer=4, what="sae")
    with pytest.raises(UsageProblem, match="trained after block 4, the model is cut after block 2"):
        checked_fit(imported, hidden_size=HIDDEN, layer=2, what="sae")


def test_gemma_scope_scaling_that_is_not_one_is_refused(tmp_path: Path) -> None:
    place = write_gemma_scope(tmp_path)
    with np.load(place / "params.npz") as stored:
        kept = dict(stored)
    np.savez(place / "params.npz", scaling_factor=np.ones(LATENTS, np.float32), **kept)
    read_foreign_sae(place)
    np.savez(place / "params.npz", scaling_factor=np.full(LATENTS, 2, np.float32), **kept)
    with pytest.raises(UsageProblem, match="'scaling_factor' can be left out only where all its values are 1, and here"):
        read_foreign_sae(place)


def test_k_goes_with_the_top_k_activations_alone() -> None:
    with pytest.raises(ValueError, match="k = 4 does not go with activation = 'jumprelu'"):
        SparseEncoder(hidden_size=2, n_latents=4, activation="jumprelu", k=4)
    with pytest.raises(ValueError, match="k = 0 does not go with activation = 'topk'"):
        SparseEncoder(hidden_size=2, n_latents=4, activation="topk")


def test_jumprelu_keeps_what_lies_above_its_threshold_and_nothing_negative() -> None:
    sae = SparseEncoder(hidden_size=2, n_latents=3, activation="jumprelu", subtracts_bias=False)
    with torch.no_grad():
        sae.encoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        sae.threshold.copy_(torch.tensor([2.0, 1.0, -5.0]))
    assert sae.encode(torch.tensor([2.0, 1.5])).latents.tolist() == [0.0, 1.5, 0.0]


def test_a_plain_topk_encoder_is_ours(tmp_path: Path) -> None:
    plain, twin = ours(standardizes=True), SparseEncoder(
        hidden_size=HIDDEN, n_latents=LATENTS, activation="topk", k=K, normalization="standardize"
    )  # fmt: skip
    twin.load_state_dict(plain.state_dict())
    x = inputs()
    assert torch.equal(twin.encode(twin.prepare(x)).latents, plain.encode(plain.prepare(x)).latents)
    export_sae_lens(tmp_path, twin, layer=1, model_name="tiny")
    assert set(load_file(tmp_path / "sae_weights.safetensors")) == {"W_enc", "W_dec", "b_enc", "b_dec"}
