"""SAE training: alone or with others, stopped or not, the same bytes; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import HIDDEN, TEXTS, Stop, edit_tensors, job_context, read_rows, same_bytes, save_backbone, write_corpus

from sarm.backbone.decoder import hidden_states
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.checkpoints.saes.files import load_sae
from sarm.config.train import SAETrainingConfig
from sarm.job import Interrupted, JobContext, UsageProblem
from sarm.jobs.train.sae import train_sae, train_saes
from sarm.sae.model import TopKSAE, standardize
from sarm.sae.update import SAEUpdate, StepResult, learning_rate_at


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return {"backbone": save_backbone(folder / "backbone"), "corpus": write_corpus(folder / "corpus", TEXTS, times=50)}


def config(**changes: Any) -> SAETrainingConfig:
    values = {
        "layer": 2,
        "n_latents": 32,
        "k": 4,
        "vectors": 480,
        "batch_vectors": 16,
        "buffer_vectors": 128,
        "held_out_vectors": 40,
        "learning_rate": 1e-2,
        **changes,
    }
    return SAETrainingConfig(**values)


def train(folder: Path, inputs: dict[str, Path], stop: Stop | None = None, resources: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Train one SAE; returns its output folder."""
    context = job_context(folder, inputs=inputs, stop=stop, threads=1, **(resources or {}))
    train_sae(config(**changes), context)
    return context.output


def test_training_writes_an_sae_its_metrics_and_its_quality(tmp_path: Path, inputs: dict[str, Path]) -> None:
    output = train(tmp_path, inputs)
    assert sorted(path.name for path in output.iterdir()) == ["metrics.jsonl", "quality.json", "sae.json", "sae.safetensors"]
    sae, geometry = load_sae(output)
    assert (geometry.layer, sae.hidden_size, sae.n_latents, sae.k) == (2, HIDDEN, 32, 4)
    torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(32))
    rows = read_rows(output / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 11, 21, 30]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    quality = json.loads((output / "quality.json").read_text())
    assert 0 < quality["fvu"] < 1 and quality["l0"] <= 4 and 0 <= quality["dead_share"] < 1
    assert 0 < quality["held_out_vectors"] <= 40


def test_sae_trained_with_others_equals_the_one_trained_alone(tmp_path: Path, inputs: dict[str, Path]) -> None:
    shapes: list[dict[str, Any]] = [{"layer": 2}, {"layer": 4, "n_latents": 48, "k": 7}, {"layer": 1, "k": 1}]
    alone = [train(tmp_path / f"alone-{index}", inputs, **shape) for index, shape in enumerate(shapes)]
    work = [(config(**shape), job_context(tmp_path / f"fused-{index}", inputs=inputs, threads=1)) for index, shape in enumerate(shapes)]
    train_saes(work)
    for folder, (_, context) in zip(alone, work, strict=True):
        same_bytes(folder, context.output)


@pytest.mark.parametrize("after", [1, 8, 11, 29])
def test_stopped_run_resumes_to_the_very_same_bytes(tmp_path: Path, inputs: dict[str, Path], after: int) -> None:
    whole = train(tmp_path / "whole", inputs, auxk_weight=0.1, dead_after_vectors=32)
    with pytest.raises(Interrupted, match=f"stopped at step {after} on request"):
        train(tmp_path / "stopped", inputs, Stop(after), auxk_weight=0.1, dead_after_vectors=32)
    assert not (tmp_path / "stopped" / "output" / "sae.safetensors").exists()
    same_bytes(whole, train(tmp_path / "stopped", inputs, auxk_weight=0.1, dead_after_vectors=32))


@pytest.mark.parametrize("after", [3, 10, 13, 40])
def test_stopped_pair_resumes_to_the_very_same_bytes(tmp_path: Path, inputs: dict[str, Path], after: int) -> None:
    shapes: list[dict[str, Any]] = [{"layer": 2}, {"layer": 3, "k": 2}]

    def work(name: str, stop: Stop | None = None) -> list[tuple[SAETrainingConfig, JobContext]]:
        return [
            (config(**shape), job_context(tmp_path / f"{name}-{index}", inputs=inputs, stop=stop, threads=1))
            for index, shape in enumerate(shapes)
        ]

    train_saes(work("whole"))
    with pytest.raises(Interrupted):
        train_saes(work("stopped", Stop(after)))
    if after > 30:
        assert all(list((tmp_path / f"stopped-{index}" / "checkpoint").iterdir()) for index in range(2)), "both keep what they have"
    # Stopped once more before the end: the one that is ahead waits for the other.
    with pytest.raises(Interrupted):
        train_saes(work("stopped", Stop(5)))
    train_saes(work("stopped"))
    for index in range(2):
        same_bytes(tmp_path / f"whole-{index}" / "output", tmp_path / f"stopped-{index}" / "output")


def test_checkpoint_by_the_clock_changes_nothing(tmp_path: Path, inputs: dict[str, Path]) -> None:
    often = train(tmp_path / "often", inputs, resources={"checkpoint_minutes": 1e-9})
    same_bytes(train(tmp_path / "never", inputs), often)


def test_micro_batch_size_changes_nothing_but_rounding(tmp_path: Path, inputs: dict[str, Path]) -> None:
    one = train(tmp_path / "small", inputs, resources={"micro_batch_tokens": 16})
    other = train(tmp_path / "large", inputs, resources={"micro_batch_tokens": 4096})
    ours, theirs = load_file(one / "sae.safetensors"), load_file(other / "sae.safetensors")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


def test_first_step_uses_the_states_of_the_truncated_model(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    prepare = TopKSAE.prepare
    monkeypatch.setattr(TopKSAE, "prepare", lambda sae, states: seen.append(states.clone()) or prepare(sae, states))
    train(tmp_path, inputs, vectors=16, buffer_vectors=16, held_out_vectors=0)
    tokenizer, backbone = load_tokenizer(inputs["backbone"]), load_truncated_backbone(inputs["backbone"], layer=2, dtype=torch.float32)
    ids = tokenizer("A blue cat and a green dog sat -- then ran.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = hidden_states(backbone, ids, [2])[2][0, -1]
    assert len(seen) == 1 and seen[0].shape == (16, HIDDEN)
    assert any(torch.allclose(state, expected, atol=1e-5) for state in seen[0])
    assert not torch.allclose(standardize(seen[0]).values, seen[0])


@pytest.fixture(scope="module")
def plain_sae(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, Path]) -> bytes:
    """The weights of the default choices after 20 steps."""
    return (train(tmp_path_factory.mktemp("plain"), inputs, vectors=320) / "sae.safetensors").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": "all"},
        {"tokens": "last-and-inner"},
        {"context": "document", "max_tokens": 24},
        {"context": "document", "tokens": "all"},
        {"min_tokens": 8},
        {"max_tokens": 6},
        {"latin1_only": True},
        {"standardize": False},
        {"objective": "squared_error"},
        {"schedule": "authors"},
        {"dtype": "bfloat16", "backbone_dtype": "bfloat16"},
        {"products": "bfloat16"},
        {"moments": "bfloat16"},
        {"warmup_fraction": 0.0},
        {"auxk_weight": 0.03, "dead_after_vectors": 16},
    ],
    ids=str,
)
def test_every_choice_trains_and_differs_from_the_default(
    tmp_path: Path, inputs: dict[str, Path], plain_sae: bytes, changes: dict[str, Any]
) -> None:
    output = train(tmp_path, inputs, vectors=320, **changes)
    rows = read_rows(output / "metrics.jsonl")
    assert rows[-1]["step"] == 20
    sae, geometry = load_sae(output)
    assert all(torch.isfinite(value).all() for value in sae.state_dict().values())
    assert geometry.standardize == changes.get("standardize", True)
    if "latin1_only" not in changes:
        assert (output / "sae.safetensors").read_bytes() != plain_sae


@pytest.mark.slow
def test_an_sae_of_compiled_blocks_is_that_of_plain_ones_but_for_rounding(tmp_path: Path, inputs: dict[str, Path]) -> None:
    plain, compiled = (read_rows(train(tmp_path / block, inputs, block=block) / "metrics.jsonl") for block in ("plain", "compiled"))
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in plain], rel=1e-3)


@pytest.mark.parametrize("held_out", [0, 1])
def test_too_little_held_out_text_gives_no_quality(tmp_path: Path, inputs: dict[str, Path], held_out: int) -> None:
    output = train(tmp_path, inputs, vectors=32, held_out_vectors=held_out)
    assert json.loads((output / "quality.json").read_text()) == {"held_out_vectors": 0}


def test_layer_beyond_the_model_is_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match="layer 9 does not exist: the model has 4 blocks"):
        train(tmp_path, inputs, layer=9)


@pytest.mark.parametrize(
    ("texts", "complaint"), [((), "the corpus is empty"), (("One.", "Two."), "no sentence of the corpus passes min_tokens")]
)
def test_corpus_without_a_usable_sentence_is_refused(
    tmp_path: Path, inputs: dict[str, Path], texts: tuple[str, ...], complaint: str
) -> None:
    corpus = write_corpus(tmp_path / "corpus", texts)
    with pytest.raises(UsageProblem, match=complaint):
        train(tmp_path / "job", {**inputs, "corpus": corpus}, min_tokens=9)


def test_broken_line_of_the_corpus_is_named(tmp_path: Path, inputs: dict[str, Path]) -> None:
    corpus = write_corpus(tmp_path / "corpus", TEXTS)
    with (corpus / "corpus.jsonl").open("a") as lines:
        lines.write("{}\n")
    with pytest.raises(UsageProblem, match=r"corpus\.jsonl:5: no JSON object with a key 'text'"):
        train(tmp_path / "job", {**inputs, "corpus": corpus})


def test_states_that_are_not_finite_are_refused_naming_the_document(tmp_path: Path, inputs: dict[str, Path]) -> None:
    backbone = save_backbone(tmp_path / "broken")
    four = load_tokenizer(backbone).convert_tokens_to_ids("four")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][four] = float("nan")

    edit_tensors(backbone / "model.safetensors", spoil)
    corpus = write_corpus(tmp_path / "corpus", TEXTS)
    with pytest.raises(UsageProblem, match=r"corpus\.jsonl:3: the model's hidden states are not finite on this document; remove it"):
        train(tmp_path / "job", {"backbone": backbone, "corpus": corpus}, held_out_vectors=0)


def test_loss_that_explodes_is_refused_with_its_step(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match=r"the SAE's loss is (nan|inf) at step \d+; lower the learning rate"):
        train(tmp_path, inputs, learning_rate=1e30, objective="squared_error", unit_norm_every=1000, warmup_fraction=0.0)


def test_refusal_leaves_the_last_checkpoint_where_it_is(tmp_path: Path, inputs: dict[str, Path]) -> None:
    often = {"checkpoint_minutes": 1e-9}
    with pytest.raises(UsageProblem, match="the SAE's loss is") as refusal:
        train(tmp_path, inputs, None, often, learning_rate=1e30, objective="squared_error", unit_norm_every=1000, warmup_fraction=0.0)
    step = int(str(refusal.value).partition("at step ")[2].partition(";")[0])
    assert step > 0
    (kept,) = (tmp_path / "checkpoint").iterdir()
    assert kept.name == f"step-{step:010d}"
    assert all(torch.isfinite(value).all() for name, value in load_file(kept / "state.safetensors").items() if name.startswith("sae."))


@pytest.mark.parametrize("step", [5, 19])
def test_weights_that_are_not_finite_are_never_written(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    sound = SAEUpdate.step

    def broken(self: SAEUpdate, x: torch.Tensor, index: int) -> StepResult:
        result = sound(self, x, index)
        if index == step:
            self.sae.pre_bias.data[0] = float("nan")
        return result

    monkeypatch.setattr(SAEUpdate, "step", broken)
    with pytest.raises(UsageProblem, match=rf"the SAE's weights are not finite after step {step}; lower the learning rate"):
        train(tmp_path, inputs, None, {"checkpoint_minutes": 1e-9}, vectors=320)
    (kept,) = (tmp_path / "checkpoint").iterdir()
    assert kept.name == f"step-{step:010d}" and not list((tmp_path / "output").glob("*.safetensors"))


def test_states_that_are_not_finite_in_a_later_chunk_leave_the_checkpoint_of_the_earlier_ones(tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path / "broken")
    red = load_tokenizer(backbone).convert_tokens_to_ids("red")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][red] = float("inf")

    edit_tensors(backbone / "model.safetensors", spoil)
    given = {"backbone": backbone, "corpus": write_corpus(tmp_path / "corpus", (*[TEXTS[0]] * 300, TEXTS[1]))}
    with pytest.raises(UsageProblem, match=r"corpus\.jsonl:301: the model's hidden states are not finite"):
        # Under this seed the last document of the file is not among the first 64 of the pass.
        train(tmp_path / "job", given, None, {"checkpoint_minutes": 1e-9}, held_out_vectors=0, buffer_vectors=16, seed=1)
    (kept,) = (tmp_path / "job" / "checkpoint").iterdir()
    assert int(kept.name.removeprefix("step-")) > 0


def test_constant_schedule_warms_up_and_stays_flat() -> None:
    rates = [learning_rate_at(config(warmup_fraction=0.1, learning_rate=1.0), step=step, steps=20) for step in range(20)]
    assert rates == [0.0, 0.5] + [1.0] * 18


def test_authors_schedule_jumps_and_ends_at_zero() -> None:
    authors = config(schedule="authors", learning_rate=1.0)
    rates = [learning_rate_at(authors, step=step, steps=100) for step in range(100)]
    assert rates[79] == 1.0 and rates[80] == pytest.approx(15 / 75) and rates[95:] == [0.0] * 5


def test_small_moments_resume_to_the_very_same_bytes(tmp_path: Path, inputs: dict[str, Path]) -> None:
    whole = train(tmp_path / "whole", inputs, moments="bfloat16")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", inputs, Stop(13), moments="bfloat16")
    (kept,) = (tmp_path / "stopped" / "checkpoint").iterdir()
    assert load_file(kept / "state.safetensors")["optimizer.2.exp_avg_sq"].dtype == torch.bfloat16
    same_bytes(whole, train(tmp_path / "stopped", inputs, moments="bfloat16"))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="k = 33 is larger than n_latents = 32"):
        config(k=33)
    with pytest.raises(ValueError, match="moments = 'bfloat16' needs dtype = 'float32', not 'float16'"):
        config(moments="bfloat16", dtype="float16")
    with pytest.raises(ValueError, match="batch_vectors = 256 must not exceed buffer_vectors = 128"):
        config(batch_vectors=256)
