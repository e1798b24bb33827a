"""Two checkpoints compared: every status, the groups, and what is said about the SAE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import Stop, edit_tensors, job_context

from sarm.checkpoints.saes.files import save_sae
from sarm.config.weights import WeightComparisonConfig
from sarm.job import Interrupted, UsageProblem
from sarm.jobs.weights.compare import compare_weights, group_of, natural_order
from sarm.sae.model import TopKSAE

CONFIG = WeightComparisonConfig(first_digest="a", second_digest="b")


def checkpoint(folder: Path, **changes: torch.Tensor | None) -> Path:
    """A folder with a few tensors of a SARM; `changes` (with `__` for a dot) replace, add or (None) take away."""
    tensors: dict[str, torch.Tensor | None] = {
        "model.embed_tokens.weight": torch.arange(12.0).reshape(4, 3),
        "model.layers.0.mlp.up_proj.weight": torch.ones(3, 3),
        "model.layers.10.mlp.up_proj.weight": torch.ones(3, 3),
        "model.layers.2.mlp.up_proj.weight": torch.ones(3, 3),
        "model.norm.weight": torch.ones(3),
        "sae.encoder.weight": torch.arange(15.0).reshape(5, 3) / 7,
        "sae.decoder.weight": torch.arange(15.0).reshape(3, 5) / 7,
        "sae.pre_bias": torch.zeros(3),
        "sae.latent_bias": torch.full((5,), 0.1),
        "score.weight": torch.zeros(1, 5),
    }
    tensors.update({name.replace("__", "."): value for name, value in changes.items()})
    folder.mkdir(parents=True)
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "model.safetensors")
    return folder


def compared(folder: Path, first: Path, second: Path) -> dict[str, Any]:
    """The file that the job writes."""
    compare_weights(CONFIG, job_context(folder / "job", locations={"first": first, "second": second}))
    found: dict[str, Any] = json.loads((folder / "job" / "output" / "comparison.json").read_text())
    return found


def test_two_equal_checkpoints_have_a_frozen_sae(tmp_path: Path) -> None:
    found = compared(tmp_path, checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))
    assert found["sae"]["verdict"] == "frozen" and found["sae"]["changed"] == []
    assert {entry["status"] for entry in found["tensors"]} == {"equal"}
    assert (found["first"], found["second"], found["first_digest"]) == ("a", "b", "a")


def test_a_trained_backbone_beside_a_frozen_sae(tmp_path: Path) -> None:
    changed = torch.ones(3, 3)
    changed[0, 0] = 4.0
    second = checkpoint(tmp_path / "b", model__layers__2__mlp__up_proj__weight=changed, score__weight=torch.ones(1, 5))
    found = compared(tmp_path, checkpoint(tmp_path / "a"), second)
    assert found["sae"]["verdict"] == "frozen"
    groups = {entry["group"]: entry for entry in found["groups"]}
    assert list(groups) == [
        *("embeddings", "block 0", "block 2", "block 10", "final norm"),
        *("sae.decoder.weight", "sae.encoder.weight", "sae.latent_bias", "sae.pre_bias", "score"),
    ]
    assert groups["block 2"]["max_abs"] == 3.0 and groups["block 2"]["changed_elements"] == 1
    assert groups["block 2"]["relative_frobenius"] == pytest.approx(1.0)
    assert groups["block 0"]["not_equal"] == 0
    # From all 0 there is no relative size.
    assert groups["score"]["relative_frobenius"] is None and groups["score"]["max_abs"] == 1.0


def test_a_trained_sae_is_said_so_with_its_tensors(tmp_path: Path) -> None:
    second = checkpoint(tmp_path / "b", sae__encoder__weight=torch.arange(15.0).reshape(5, 3) / 7 * 1.5, sae__pre_bias=torch.ones(3))
    found = compared(tmp_path, checkpoint(tmp_path / "a"), second)
    assert found["sae"]["verdict"] == "trained"
    assert found["sae"]["changed"] == ["sae.encoder.weight", "sae.pre_bias"]
    assert "2 of 4 tensors differ, most of all sae.encoder.weight (0.5 of its norm)" in found["sae"]["sentence"]


def test_an_sae_saved_in_less_precision_is_frozen_up_to_rounding(tmp_path: Path) -> None:
    rounded = {
        "sae__encoder__weight": (torch.arange(15.0).reshape(5, 3) / 7).bfloat16(),
        "sae__decoder__weight": (torch.arange(15.0).reshape(3, 5) / 7).bfloat16(),
    }
    first, second = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", **rounded)
    found = compared(tmp_path, first, second)
    assert found["sae"]["verdict"] == "frozen up to rounding"
    entry = next(entry for entry in found["tensors"] if entry["name"] == "sae.encoder.weight")
    assert entry["status"] == "equal after rounding" and entry["dtypes"] == ["float32", "bfloat16"] and entry["max_abs"] > 0
    edit_tensors(second / "model.safetensors", lambda tensors: tensors["sae.decoder.weight"].add_(1))
    assert compared(tmp_path / "again", first, second)["sae"]["changed"] == ["sae.decoder.weight"]


def test_tensors_of_one_side_or_of_another_shape_are_listed(tmp_path: Path) -> None:
    second = checkpoint(tmp_path / "b", model__norm__weight=None, lm_head__weight=torch.ones(2), sae__pre_bias=torch.ones(4))
    found = compared(tmp_path, checkpoint(tmp_path / "a"), second)
    statuses = {entry["name"]: entry["status"] for entry in found["tensors"]}
    assert statuses["model.norm.weight"] == "only in first"
    assert statuses["lm_head.weight"] == "only in second"
    assert statuses["sae.pre_bias"] == "other shape"
    assert found["sae"]["verdict"] == "trained"


def test_a_start_without_sae_says_nothing_about_freezing(tmp_path: Path) -> None:
    names = ("sae__encoder__weight", "sae__decoder__weight", "sae__pre_bias", "sae__latent_bias")
    first = checkpoint(tmp_path / "a", **dict.fromkeys(names))
    found = compared(tmp_path, first, checkpoint(tmp_path / "b"))
    assert found["sae"]["verdict"] == "no SAE to compare"
    assert len(found["sae"]["only_in_one"]) == 4


def test_an_sae_artifact_is_compared_with_the_sae_inside_a_reward_model(tmp_path: Path) -> None:
    sae = TopKSAE(hidden_size=3, n_latents=5, k=2)
    (tmp_path / "sae").mkdir()
    save_sae(tmp_path / "sae", sae, layer=1)
    inside = {f"sae__{name.replace('.', '__')}": value.detach().clone() for name, value in sae.state_dict().items()}
    found = compared(tmp_path, tmp_path / "sae", checkpoint(tmp_path / "model", **inside))
    assert found["sae"]["verdict"] == "frozen"


def test_large_tensors_are_compared_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sarm.jobs.weights.compare.PIECE", 4)
    second = checkpoint(tmp_path / "b", sae__encoder__weight=torch.arange(15.0).reshape(5, 3) / 7 + 1)
    entry = next(
        entry for entry in compared(tmp_path, checkpoint(tmp_path / "a"), second)["tensors"] if entry["name"] == "sae.encoder.weight"
    )
    whole = torch.arange(15.0).double() / 7
    assert entry["changed_elements"] == 15 and entry["max_abs"] == pytest.approx(1.0)
    assert entry["relative_frobenius"] == pytest.approx(float(15**0.5 / whole.norm()), rel=1e-6)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "a")
    with pytest.raises(UsageProblem, match=r"tensor 'score\.weight' has values that are not finite"):
        compared(tmp_path, first, checkpoint(tmp_path / "nan", score__weight=torch.full((1, 5), float("nan"))))
    (tmp_path / "other").mkdir()
    save_file({"x": torch.ones(1)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(UsageProblem, match="no tensor of the same name"):
        compared(tmp_path, first, tmp_path / "other")
    (tmp_path / "pickled").mkdir()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UsageProblem, match="pickles are not loaded"):
        compared(tmp_path, first, tmp_path / "pickled")


def test_a_requested_stop_is_obeyed(tmp_path: Path) -> None:
    locations = {"first": checkpoint(tmp_path / "a"), "second": checkpoint(tmp_path / "b")}
    with pytest.raises(Interrupted):
        compare_weights(CONFIG, job_context(tmp_path / "job", locations=locations, stop=Stop(after=2)))


def test_groups_and_order() -> None:
    assert [group_of(name) for name in ("layers.3.x", "embed_tokens.weight", "norm.weight", "v_head.summary.weight")] == [
        *("block 3", "embeddings", "final norm", "other"),
    ]
    names = ["model.layers.10.a", "model.layers.9.a", "sae.b"]
    assert sorted(names, key=natural_order) == ["model.layers.9.a", "model.layers.10.a", "sae.b"]
