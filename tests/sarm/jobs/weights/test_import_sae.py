"""SAEs trained elsewhere as inputs of reward training, the start from one checkpoint with backbone and SAE, and what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_checkpoints import RUN, random_sarm, save_authors
from foreign_sae_files import (
    HIDDEN,
    LATENTS,
    K,
    ours,
    tensors,
    write_dictionary,
    write_gemma_scope,
    write_llama_scope,
    write_sae_lens,
    write_sparsify,
)
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny import edit_json, edit_tensors, job_context, learnable_pairs, read_rows, save_backbone, save_word_tokenizer, write_rows

from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.files import load_sae, save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.config.score import ScoringConfig
from sarm.config.train import RewardTrainingConfig
from sarm.config.weights import ImportedSAEConfig, WeightsConfig
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.jobs.score.benchmark import score_benchmark
from sarm.jobs.train.reward import train_reward
from sarm.jobs.weights.fetch import fetch_weights
from sarm.jobs.weights.import_sae import import_sae
from sarm.reward.models import SARM
from sarm.sae.sparse_encoder import SparseEncoder

GEOMETRY = {"sarm_param": {"sae_source_layer": 2, "sae_latent_size": 24, "sae_k": 4, "sarm_use_activation": True}}


def layouts(folder: Path) -> dict[str, Path]:
    """One SAE of each layout; each was trained after block 4 on states of width 8, as far as its files say."""
    return {
        "SAELens": write_sae_lens(folder / "lens", "jumprelu"),
        "sparsify": write_sparsify(folder / "layers.3"),
        "dictionary_learning": write_dictionary(folder / "dictionary", "AutoEncoderTopK"),
        "Llama Scope": write_llama_scope(folder / "llama", "topk"),
        "Gemma Scope": write_gemma_scope(folder / "gemma"),
    }


def imported(folder: Path, source: Path, **changes: Any) -> Path:
    """Run the job on a folder; returns its output."""
    fields = {"origin": "folder", "layout": "auto", "revision": "0" * 64, "layer": 4, "hidden_size": HIDDEN, **changes}
    context = job_context(folder, locations={"source": source})
    import_sae(ImportedSAEConfig(**fields), context)
    return context.output


def from_checkpoint(folder: Path, checkpoint: Path, **changes: Any) -> Path:
    """Run the job on a fetched checkpoint; returns its output."""
    fields = {"origin": "checkpoint", "layout": "checkpoint", "layer": 2, "hidden_size": 16, **changes}
    context = job_context(folder, inputs={"checkpoint": checkpoint})
    import_sae(ImportedSAEConfig(**fields), context)
    return context.output


def fetched(folder: Path, source: Path) -> Path:
    """`fetch_weights` of a local folder."""
    context = job_context(folder, locations={"source": source})
    fetch_weights(WeightsConfig(origin="folder", revision="0" * 64), context)
    return context.output


def trained(folder: Path, backbone: Path, sae: Path, **changes: Any) -> Path:
    """Two steps of reward training; returns its output."""
    preferences = write_rows(folder / "pairs", "train.jsonl", learnable_pairs(8))
    context = job_context(folder / "reward", inputs={"backbone": backbone, "sae": sae, "preferences": preferences}, threads=1)
    train_reward(RewardTrainingConfig(**{"layer": 4, "batch_pairs": 4, "epochs": 1, "learning_rate": 1e-2, **changes}), context)
    return context.output


def scored(folder: Path, model: Path) -> list[float]:
    """Rewards of a small benchmark."""
    benchmark = write_rows(folder / "benchmark", "rewardbench2.jsonl", learnable_pairs(4))
    context = job_context(folder / "scores", inputs={"model": model, "benchmark": benchmark}, threads=1)
    score_benchmark(ScoringConfig(benchmark="rewardbench2"), context)
    return [row["chosen_rewards"][0] for row in read_rows(context.output / "rewards.jsonl")]


@pytest.mark.parametrize("layout", ["SAELens", "sparsify", "dictionary_learning", "Llama Scope", "Gemma Scope"])
def test_an_sae_of_each_layout_goes_through_training_and_scoring_unchanged(tmp_path: Path, layout: str) -> None:
    place = layouts(tmp_path)[layout]
    sae = imported(tmp_path / "import", place, layout=layout)
    loaded, geometry = load_sae(sae)
    theirs = read_foreign_sae(place).sae
    assert isinstance(loaded, SparseEncoder) and loaded.convention == theirs.convention
    assert (geometry.layer, geometry.hidden_size, geometry.n_latents, geometry.k) == (4, HIDDEN, LATENTS, theirs.convention["k"])
    backbone = save_backbone(tmp_path / "backbone", hidden_size=HIDDEN)
    model = load_reward_model(trained(tmp_path, backbone, sae))
    assert isinstance(model, SARM) and isinstance(model.sae, SparseEncoder)
    for name, value in theirs.state_dict().items():
        assert torch.equal(model.sae.state_dict()[name], value), f"{name}: the SAE is frozen"
    assert len(set(scored(tmp_path, tmp_path / "reward" / "output"))) > 1


def test_auto_tells_the_layouts_apart_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    for number, place in enumerate(layouts(tmp_path).values()):
        assert (imported(tmp_path / f"job{number}", place) / "sae.json").exists()
    with pytest.raises(UsageProblem, match=r"lens: no params\.npz, which an SAE in the layout of Gemma Scope has"):
        imported(tmp_path / "wrong", tmp_path / "lens", layout="Gemma Scope")


def test_our_own_export_and_the_authors_file_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    save_sae(tmp_path / "ours", ours(standardizes=True), layer=4)
    again, _ = load_sae(imported(tmp_path / "one", tmp_path / "ours", layout="ours"))
    assert torch.equal(again.encoder.weight, ours().encoder.weight) and again.standardizes
    foreign = imported(tmp_path / "lens-import", write_sae_lens(tmp_path / "lens", "jumprelu"))
    twice, _ = load_sae(imported(tmp_path / "two", foreign, layout="ours"))
    assert isinstance(twice, SparseEncoder) and twice.activation == "jumprelu"
    parts = tensors()
    name = f"tiny_sequence_Latent{LATENTS}_Layer4_K{K}_1B.pt"
    names = {"encoder": "encoder.weight", "decoder": "decoder.weight", "pre_bias": "pre_bias", "latent_bias": "latent_bias"}
    torch.save({theirs: parts[key] for key, theirs in names.items()}, tmp_path / name)
    released, geometry = load_sae(imported(tmp_path / "three", tmp_path, layout="authors-file", file=name))
    assert geometry.k == K and torch.equal(released.latent_bias, parts["latent_bias"])


def test_stage_2_starts_from_a_checkpoint_that_holds_backbone_and_sae(tmp_path: Path) -> None:
    start = random_sarm()
    start.score.weight.data.zero_()
    checkpoint = save_authors(tmp_path / "PostSAEPretrain", start, GEOMETRY)
    save_word_tokenizer(checkpoint)
    whole = fetched(tmp_path / "fetch", checkpoint)
    sae = from_checkpoint(tmp_path / "import", whole)
    loaded, geometry = load_sae(sae)
    assert (geometry.layer, geometry.k) == (2, 4) and torch.equal(loaded.encoder.weight, start.sae.encoder.weight)
    output = trained(tmp_path, whole, sae, layer=2)
    before, after = load_file(checkpoint / "model.safetensors"), load_file(output / "model.safetensors")
    assert not torch.equal(after["score.weight"], before["score.weight"])
    assert torch.equal(after["sae.encoder.weight"], before["sae.encoder.weight"]), "the SAE is frozen"
    assert len(set(scored(tmp_path, output))) > 1


def test_geometry_in_a_runs_name_alone_is_kept_when_the_run_is_brought_in(tmp_path: Path) -> None:
    run = save_authors(tmp_path / RUN.format("TopK") / "checkpoint-150", random_sarm(), {})
    save_word_tokenizer(run)
    before = (run / "config.json").read_bytes()
    output = fetched(tmp_path / "fetch", run)
    assert (run / "config.json").read_bytes() == before
    model = load_reward_model(output)
    assert isinstance(model, SARM) and (model.layer, model.sae.k, model.latents) == (2, 4, "topk")
    nameless = save_authors(tmp_path / "nameless", random_sarm(), {})
    with pytest.raises(UsageProblem, match=r"no geometry in config\.json and no _Latent"):
        fetched(tmp_path / "other", nameless)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": 16}, "reads 8 numbers a token, the model's states have 16"),
        ({"layer": 2}, "trained after block 4, the model is cut after block 2"),
    ],
)
def test_an_sae_trained_on_another_width_or_layer_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageProblem, match=complaint):
        imported(tmp_path / "job", write_gemma_scope(tmp_path / "gemma"), **changes)


def test_the_checkpoints_own_sae_must_fit_the_row_as_well(tmp_path: Path) -> None:
    checkpoint = save_authors(tmp_path / "start", random_sarm(), GEOMETRY)
    with pytest.raises(UsageProblem, match="after block 2 on states of width 16, the model is cut after block 3 and has width 16"):
        from_checkpoint(tmp_path / "layer", checkpoint, layer=3)
    edit_tensors(checkpoint / "model.safetensors", lambda found: found.pop("sae.latent_bias"))
    with pytest.raises(UsageProblem, match=r"tensor 'sae\.latent_bias' is missing"):
        from_checkpoint(tmp_path / "tensor", checkpoint)
    edit_json(checkpoint / "config.json", sarm_param=None)
    with pytest.raises(UsageProblem, match=r"no geometry of the SAE in config\.json"):
        from_checkpoint(tmp_path / "geometry", checkpoint)
    plain = save_backbone(tmp_path / "plain")
    with pytest.raises(UsageProblem, match=r"no tensors named 'sae\.\*'"):
        from_checkpoint(tmp_path / "plain-import", plain)


def test_files_that_do_not_say_their_layer_need_one(tmp_path: Path) -> None:
    place = write_sparsify(tmp_path / "somewhere")
    with pytest.raises(UsageProblem, match=r"do not say after which block .* set starts\.<slot>\.layer"):
        imported(tmp_path / "job", place)
    assert json.loads((imported(tmp_path / "said", place, stated_layer=4) / "sae.json").read_text())["layer"] == 4
    with pytest.raises(UsageProblem, match="trained after block 3"):
        imported(tmp_path / "other", place, stated_layer=3)


def test_pickles_and_absent_files_are_refused(tmp_path: Path) -> None:
    place = write_dictionary(tmp_path / "dictionary", "AutoEncoder")
    torch.save({"encoder.weight": Path("x")}, place / "ae.pt")
    with pytest.raises(UsageProblem, match=r"ae\.pt: not a file of plain tensors"):
        imported(tmp_path / "job", place)
    with pytest.raises(EnvironmentProblem, match=r"layer_9: no such file or folder; correct starts\.<slot>\.source"):
        imported(tmp_path / "gone", place, file="layer_9")


def test_a_hub_repository_is_read_from_the_place_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_gemma_scope(tmp_path / "gemma")
    inside = place.relative_to(tmp_path / "gemma").as_posix()
    asked: dict[str, Any] = {}

    def download(repository: str, **given: Any) -> None:
        asked.update(given, repository=repository)
        target = Path(given["local_dir"]) / inside
        target.mkdir(parents=True)
        (target / "params.npz").write_bytes((place / "params.npz").read_bytes())

    monkeypatch.setattr("sarm.jobs.weights.import_sae.snapshot_download", download)
    hub = {"origin": "hub", "repository": "owner/scope", "revision": "f" * 40, "file": inside}
    context = job_context(tmp_path / "job")
    import_sae(ImportedSAEConfig(layout="Gemma Scope", layer=4, hidden_size=HIDDEN, **hub), context)
    assert (context.output / "sae.safetensors").exists() and asked["repository"] == "owner/scope"
    assert asked["revision"] == "f" * 40 and asked["allow_patterns"] == [inside, f"{inside}/**"]

    def offline(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("sarm.jobs.weights.import_sae.snapshot_download", offline)
    with pytest.raises(EnvironmentProblem, match=r"owner/scope@ffffffffffff cannot be downloaded \(LocalEntryNotFoundError\)"):
        import_sae(ImportedSAEConfig(layout="auto", layer=4, hidden_size=HIDDEN, **hub), job_context(tmp_path / "offline"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_not_blamed_on_the_network(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, "no room")

    monkeypatch.setattr("sarm.jobs.weights.import_sae.snapshot_download", full)
    hub = {"origin": "hub", "repository": "owner/scope", "revision": "f" * 40}
    with pytest.raises(OSError, match="no room"):
        import_sae(ImportedSAEConfig(layout="auto", layer=4, hidden_size=HIDDEN, **hub), job_context(tmp_path / "job"))


def test_origins_and_layouts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="only a checkpoint holds both"):
        ImportedSAEConfig(origin="folder", layout="checkpoint", layer=1, hidden_size=8)
    with pytest.raises(ValidationError, match="does not go with origin = 'folder'"):
        ImportedSAEConfig(origin="folder", layout="auto", repository="a/b", layer=1, hidden_size=8)
