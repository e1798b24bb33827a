"""Reward training: which parameters move, what a micro-batch may change, exact resume, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import HIDDEN, Stop, edit_tensors, job_context, learnable_pairs, pair, read_rows, same_bytes, save_backbone, write_rows
from torch import Tensor

from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.reward_models.untrained import untrained_reward_model
from sarm.checkpoints.saes.files import save_sae
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.job import Interrupted, UsageProblem
from sarm.jobs.train.reward import PairLosses, batches_of, train_reward
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel
from sarm.reward.pair_batches import Losses, collate, micro_batches
from sarm.sae.model import TopKSAE

PAIRS = 24
ENCODERS: dict[str, dict[str, Any]] = {
    "sae": {"encoder": "sae"},
    "random_sae": {"encoder": "random_sae", "n_latents": 32, "k": 4},
    "linear": {"encoder": "linear", "n_latents": 32},
    "none": {"encoder": "none"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=32, k=4)
    sae.reset(torch.Generator().manual_seed(0))
    sae.normalize_decoder()
    (folder / "sae").mkdir()
    save_sae(folder / "sae", sae, layer=2)
    return {
        "backbone": save_backbone(folder / "backbone"),
        "sae": folder / "sae",
        "preferences": write_rows(folder / "preferences", "train.jsonl", learnable_pairs(PAIRS)),
    }


def config(**changes: Any) -> RewardTrainingConfig:
    values = {"layer": 2, "batch_pairs": 4, "epochs": 2, "learning_rate": 3e-3, "max_length": 64, **changes}
    return RewardTrainingConfig(**values)


def train(folder: Path, inputs: dict[str, Path], stop: Stop | None = None, resources: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Train a reward model; returns its output folder."""
    context = job_context(folder, inputs=inputs, stop=stop, threads=1, **(resources or {}))
    train_reward(config(**changes), context)
    return context.output


def weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / "model.safetensors")


def initial(inputs: dict[str, Path], folder: Path, **changes: Any) -> dict[str, Tensor]:
    """The weights before the first step."""
    return untrained_reward_model(config(**changes), inputs, dtype=torch.float32).state_dict()


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that changed."""
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_trains_and_can_be_loaded(tmp_path: Path, inputs: dict[str, Path], encoder: str) -> None:
    output = train(tmp_path, inputs, **ENCODERS[encoder])
    model = load_reward_model(output)
    kind = {"linear": LinearEncoderRewardModel, "none": DenseRewardModel}.get(encoder, SARM)
    assert type(model) is kind and model.layer == 2
    facts = json.loads((output / "training.json").read_text())
    assert facts["pairs"] == {"read": 24, "kept": 24, "dropped": 0, "truncated": 0, "identical": 0, "refused": 0}
    assert (facts["steps"], facts["selected_step"]) == (12, 12)
    assert facts["parameters"] == sum(value.numel() for value in weights(output).values())
    changed = moved(initial(inputs, tmp_path, **ENCODERS[encoder]), weights(output))
    assert {"score.weight", "model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"} <= changed
    assert not any(name.startswith("sae.") for name in changed), "sae_trains is False"
    assert ("model.norm.weight" in changed) == (encoder == "none")
    assert ("untrained_sae_encoder.weight" in changed) == (encoder == "linear")
    assert (output / "tokenizer.json").read_bytes() == (inputs["backbone"] / "tokenizer.json").read_bytes()


def test_sae_parameters_change_when_the_sae_trains(tmp_path: Path, inputs: dict[str, Path]) -> None:
    output = train(tmp_path, inputs, sae_trains=True, reconstruction_weight=1.0)
    changed = moved(initial(inputs, tmp_path), weights(output))
    assert {"sae.encoder.weight", "sae.decoder.weight", "sae.latent_bias", "sae.pre_bias"} <= changed
    assert all("reconstruction_loss" in row for row in read_rows(output / "metrics.jsonl"))


def test_frozen_backbone_stays_as_it_was(tmp_path: Path, inputs: dict[str, Path]) -> None:
    output = train(tmp_path, inputs, backbone_trains=False, max_steps=3)
    assert moved(initial(inputs, tmp_path), weights(output)) == {"score.weight"}


def test_zero_head_means_that_the_first_step_moves_only_the_head(tmp_path: Path, inputs: dict[str, Path]) -> None:
    plain = {"warmup_fraction": 0.0, "weight_decay": 0.0, "sae_trains": True}
    one = train(tmp_path / "one", inputs, max_steps=1, **plain)
    assert moved(initial(inputs, tmp_path), weights(one)) == {"score.weight"}
    assert read_rows(one / "metrics.jsonl")[0]["preference_loss"] == pytest.approx(0.693147, abs=1e-5)
    two = train(tmp_path / "two", inputs, max_steps=2, schedule="constant", **plain)
    assert "model.layers.0.mlp.up_proj.weight" in moved(initial(inputs, tmp_path), weights(two))


def test_normal_head_init_depends_on_the_seed(tmp_path: Path, inputs: dict[str, Path]) -> None:
    heads = [initial(inputs, tmp_path, head_init="normal", seed=seed)["score.weight"] for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert not initial(inputs, tmp_path)["score.weight"].any()


@pytest.mark.parametrize(
    "changes",
    [{}, {"sae_trains": True, "reconstruction_weight": 1.0, "reconstruction_tokens": "assistant"}, {"encoder": "none"}],
    ids=["frozen", "reconstruction", "scalar"],
)
def test_micro_batch_size_changes_two_steps_by_rounding_alone(tmp_path: Path, inputs: dict[str, Path], changes: dict[str, Any]) -> None:
    # Adam turns the sign of a vanishing gradient into a whole step, so the head starts away from zero and epsilon rules nothing.
    settings = {"max_steps": 2, "head_init": "normal", "warmup_fraction": 0.0, "learning_rate": 1e-3, **changes}
    small = weights(train(tmp_path / "small", inputs, resources={"micro_batch_tokens": 60}, **settings))
    large = weights(train(tmp_path / "large", inputs, resources={"micro_batch_tokens": 4096}, **settings))
    before = initial(inputs, tmp_path, **{key: value for key, value in settings.items() if key in ("head_init", "encoder")})
    assert len(moved(before, small)) > 10
    # Adam does not see the gradient's scale; its norm before clipping does.
    rows, others = (read_rows(tmp_path / name / "output" / "metrics.jsonl") for name in ("small", "large"))
    assert len(rows) == len(others) == 2
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    for name, value in small.items():
        # A rare element may differ by a fraction of one step of 1e-3; most by nothing.
        apart = (value - large[name]).abs()
        assert float(apart.mean()) < 1e-5 and float(apart.max()) < 5e-4, name


@pytest.mark.parametrize("after", [1, 6, 9])
@pytest.mark.parametrize(
    "changes",
    [
        {"sae_trains": True, "reconstruction_weight": 0.5},
        {"encoder": "none", "selection": "validation", "validation_fraction": 0.3, "batch_pairs": 3, "epochs": 3},
        {"encoder": "none", "selection": "test", "epochs": 3},
    ],
    ids=["sae", "validation", "test"],
)
def test_stopped_run_resumes_to_the_very_same_bytes(tmp_path: Path, inputs: dict[str, Path], changes: dict[str, Any], after: int) -> None:
    whole = train(tmp_path / "whole", inputs, **changes)
    with pytest.raises(Interrupted, match=f"stopped at step {after} on request"):
        train(tmp_path / "stopped", inputs, Stop(after), **changes)
    assert not (tmp_path / "stopped" / "output" / "model.safetensors").exists()
    same_bytes(whole, train(tmp_path / "stopped", inputs, **changes))


def test_loss_falls_on_pairs_that_can_be_learned(tmp_path: Path, inputs: dict[str, Path]) -> None:
    preferences = write_rows(tmp_path / "preferences", "train.jsonl", learnable_pairs(64))
    output = train(tmp_path, {**inputs, "preferences": preferences}, epochs=6, batch_pairs=8, learning_rate=1e-2)
    rows = read_rows(output / "metrics.jsonl")
    assert rows[-1]["preference_loss"] < 0.3 and rows[-1]["accuracy"] == 1.0


def test_validation_keeps_the_best_epoch(tmp_path: Path, inputs: dict[str, Path]) -> None:
    preferences = write_rows(tmp_path / "preferences", "train.jsonl", learnable_pairs(60))
    settings = {"selection": "validation", "validation_fraction": 0.3, "batch_pairs": 8, "epochs": 4, "schedule": "constant"}
    output = train(tmp_path, {**inputs, "preferences": preferences}, **settings)
    facts = json.loads((output / "training.json").read_text())
    validations = {row["step"]: row["validation_accuracy"] for row in read_rows(output / "metrics.jsonl") if "validation_accuracy" in row}
    per_epoch = facts["pairs"]["kept"] // 8
    assert sorted(validations) == [per_epoch * epoch for epoch in (1, 2, 3, 4)]
    assert facts["pairs"]["read"] + facts["validation_pairs"] == 60
    best = max(validations.values())
    assert facts["selected_step"] == min(step for step, accuracy in validations.items() if accuracy == best)
    kept = train(tmp_path / "kept", {**inputs, "preferences": preferences}, **settings, max_steps=facts["selected_step"])
    assert moved(weights(output), weights(kept)) == set(), "the weights are those of the selected step"


def test_every_epoch_but_the_last_is_kept_where_the_best_on_the_test_set_is_asked_for(tmp_path: Path, inputs: dict[str, Path]) -> None:
    settings = {"selection": "test", "epochs": 3, "schedule": "constant"}
    output = train(tmp_path, inputs, **settings)
    assert sorted(path.name for path in (output / "epochs").iterdir()) == ["1", "2"]
    last = train(tmp_path / "last", inputs, **{**settings, "selection": "last"})
    assert moved(weights(output), weights(last)) == set() and not (last / "epochs").exists()
    for epoch in (1, 2):
        cut = train(tmp_path / f"cut-{epoch}", inputs, **{**settings, "selection": "last", "max_steps": epoch * PAIRS // 4})
        assert moved(weights(output / "epochs" / str(epoch)), weights(cut)) == set()
        assert {path.name for path in (output / "epochs" / str(epoch)).iterdir()} < {path.name for path in output.iterdir()}


def long_and_short(folder: Path) -> Path:
    rows = [*learnable_pairs(8), pair(98, chosen="a dog and " * 20 + "a cat."), pair(99, chosen="a dog.", rejected="a dog.")]
    return write_rows(folder / "preferences", "train.jsonl", rows)


def test_overlong_pairs_are_cut_or_dropped_and_counted(tmp_path: Path, inputs: dict[str, Path]) -> None:
    inputs = {**inputs, "preferences": long_and_short(tmp_path)}
    for overlong, kept, dropped, truncated in (("left", 9, 0, 1), ("drop", 8, 1, 0)):
        output = train(tmp_path / overlong, inputs, overlong=overlong, max_steps=1)
        counts = json.loads((output / "training.json").read_text())["pairs"]
        assert counts == {"read": 10, "kept": kept, "dropped": dropped, "truncated": truncated, "identical": 1, "refused": 0}
    with pytest.raises(UsageProblem, match=r"pair 'p98': .* tokens exceed max_length = 64 and overlong = 'error'"):
        train(tmp_path / "error", inputs, overlong="error")


def test_cut_off_assistant_header_is_refused_before_the_first_step(tmp_path: Path, inputs: dict[str, Path]) -> None:
    inputs = {**inputs, "preferences": long_and_short(tmp_path)}
    recipe = {"sae_trains": True, "reconstruction_weight": 1.0, "max_steps": 1}
    with pytest.raises(UsageProblem, match="pair 'p98': max_length = 40 cuts off the assistant header"):
        train(tmp_path / "assistant", inputs, max_length=40, **recipe)
    train(tmp_path / "last", inputs, max_length=40, reconstruction_tokens="last", **recipe)


def test_max_pairs_takes_the_first_of_the_file(tmp_path: Path, inputs: dict[str, Path]) -> None:
    output = train(tmp_path, inputs, max_pairs=9, max_steps=1)
    assert json.loads((output / "training.json").read_text())["pairs"]["read"] == 9


def test_fewer_pairs_than_a_batch_are_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match="24 pairs are fewer than batch_pairs = 25; lower it or give more pairs"):
        train(tmp_path, inputs, batch_pairs=25)


def test_sae_of_another_layer_is_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match="the SAE is of layer 2 and width 16, the reward model of layer 3 and width 16"):
        train(tmp_path, inputs, layer=3)


def test_layer_beyond_the_model_is_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match="layer 9 does not exist: the model has 4 blocks"):
        train(tmp_path, inputs, layer=9, **ENCODERS["none"])


def test_tokenizer_and_rows_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, inputs: dict[str, Path]) -> None:
    backbone = save_backbone(tmp_path / "plain")
    (backbone / "chat_template.jinja").unlink()
    with pytest.raises(UsageProblem, match="plain: no chat template"):
        train(tmp_path / "one", {**inputs, "backbone": backbone})
    (tmp_path / "train.jsonl").write_text('{"id": "1", "prompt": [{"role": "user", "content": "x"}], "rejected": ["a"]}\n')
    with pytest.raises(UsageProblem, match=r"train\.jsonl:1: chosen: Field required"):
        train(tmp_path / "two", {**inputs, "preferences": tmp_path})


def test_weights_that_are_not_finite_are_refused_with_step_and_pair(tmp_path: Path, inputs: dict[str, Path]) -> None:
    backbone = save_backbone(tmp_path / "broken")

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"].fill_(float("nan"))

    edit_tensors(backbone / "model.safetensors", spoil)
    with pytest.raises(UsageProblem, match=r"the loss is nan at step 0, first of pair 'p\d+'; lower the learning rate"):
        train(tmp_path / "job", {**inputs, "backbone": backbone})


def test_the_pair_whose_states_are_not_finite_is_named_and_the_checkpoint_before_it_kept(tmp_path: Path, inputs: dict[str, Path]) -> None:
    backbone = save_backbone(tmp_path / "broken")
    tired = load_tokenizer(backbone).convert_tokens_to_ids("tired")

    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["model.embed_tokens.weight"][tired] = float("nan")

    edit_tensors(backbone / "model.safetensors", spoil)
    sound = [one for one in learnable_pairs(40) if "tired" not in one.model_dump_json()][:16]
    rows = [*sound[:9], pair(77, chosen="the cat was tired."), *sound[9:]]
    inputs = {**inputs, "backbone": backbone, "preferences": write_rows(tmp_path / "preferences", "train.jsonl", rows)}
    settings = config(epochs=1, batch_pairs=4)
    step = next(number for number, batch in enumerate(batches_of(len(rows), settings)) if 9 in batch)
    assert step > 0, "the seed's order puts the broken pair after the first step"
    with pytest.raises(UsageProblem, match=rf"the loss is nan at step {step}, first of pair 'p77'"):
        train(tmp_path / "job", inputs, epochs=1, resources={"checkpoint_minutes": 1e-9})
    kept = sorted((tmp_path / "job" / "checkpoint").iterdir())
    assert [path.name for path in kept] == [f"step-{step:010d}"]
    assert all(torch.isfinite(value).all() or "embed_tokens" in name for name, value in load_file(kept[0] / "state.safetensors").items())


@pytest.mark.parametrize("resources", [{}, pytest.param({"zero_stage": 2}, marks=pytest.mark.slow)], ids=["plain", "ZeRO 2"])
def test_a_gradient_that_is_not_finite_stops_the_step_with_its_pairs_named_and_keeps_the_checkpoint_before_it(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, resources: dict[str, Any]
) -> None:
    sound, calls = PairLosses.forward, []

    def broken(self: PairLosses, batch: Any) -> tuple[Tensor, ...]:
        losses = Losses(*sound(self, batch))
        calls.append(batch)
        # The root of 0 is 0, its slope is not finite.
        root = (self.model.score.weight * 0).sqrt().sum() if len(calls) == 3 else torch.zeros(())
        return tuple(losses._replace(preference=losses.preference + root))

    monkeypatch.setattr(PairLosses, "forward", broken)
    with pytest.raises(UsageProblem, match=r"the gradient's norm is (nan|inf) at step 2, of pairs 'p\d+', 'p\d+', 'p\d+', 'p\d+'; lower"):
        train(tmp_path, inputs, resources={"checkpoint_minutes": 1e-9, **resources})
    (kept,) = (tmp_path / "checkpoint").iterdir()
    assert kept.name == "step-0000000002" and not list((tmp_path / "output").glob("*.safetensors"))
    if not resources:
        assert all(torch.isfinite(value).all() for value in load_file(kept / "state.safetensors").values())
    monkeypatch.setattr(PairLosses, "forward", sound)
    once = train(tmp_path / "undisturbed", inputs, resources=resources)
    same_bytes(once, train(tmp_path, inputs, resources=resources))


@pytest.mark.slow
@pytest.mark.parametrize("resources", [{}, {"zero_stage": 3, "activation_checkpointing": True}], ids=["plain", "ZeRO 3, recomputed"])
def test_compiled_blocks_train_as_plain_ones_but_for_rounding(tmp_path: Path, inputs: dict[str, Path], resources: dict[str, Any]) -> None:
    settings = {"max_steps": 3, "head_init": "normal", "warmup_fraction": 0.0}
    plain, compiled = (
        read_rows(train(tmp_path / block, inputs, resources=resources, block=block, **settings) / "metrics.jsonl")
        for block in ("plain", "compiled")
    )
    assert compiled[-1] == pytest.approx(plain[-1], rel=1e-3)


def test_compiled_blocks_are_refused_where_the_library_s_own_forward_pass_runs(tmp_path: Path, inputs: dict[str, Path]) -> None:
    with pytest.raises(UsageProblem, match=r"block = 'compiled' needs pairs in packed rows.*set reward\.block=plain"):
        train(tmp_path, inputs, block="compiled", sae_trains=True, reconstruction_weight=1.0)


def test_a_pair_beyond_the_token_budget_is_trained_on_alone(tmp_path: Path, inputs: dict[str, Path]) -> None:
    settings = {"max_steps": 2, "head_init": "normal", "warmup_fraction": 0.0}
    tight = read_rows(train(tmp_path / "tight", inputs, resources={"micro_batch_tokens": 1}, **settings) / "metrics.jsonl")
    assert tight[-1] == pytest.approx(read_rows(train(tmp_path / "wide", inputs, **settings) / "metrics.jsonl")[-1], rel=1e-3)


def test_an_empty_response_is_trained_on(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows = [*learnable_pairs(7), pair(7, chosen="a good dog.", rejected="")]
    preferences = write_rows(tmp_path / "preferences", "train.jsonl", rows)
    output = train(tmp_path / "job", {**inputs, "preferences": preferences}, batch_pairs=8, epochs=1)
    assert json.loads((output / "training.json").read_text())["pairs"]["kept"] == 8


def test_backbone_without_a_pad_token_in_its_config_gets_the_tokenizers(tmp_path: Path, inputs: dict[str, Path]) -> None:
    backbone = save_backbone(tmp_path / "base", pad_token_id=None)
    output = train(tmp_path / "job", {**inputs, "backbone": backbone}, max_steps=1, **ENCODERS["none"])
    assert json.loads((output / "config.json").read_text())["pad_token_id"] == 5


def test_micro_batches_hold_each_pair_once_within_the_budget() -> None:
    pairs = [EncodedPair([1] * (3 + index % 7), [1] * (2 + index % 5), f"p{index}") for index in range(40)]
    parts = list(micro_batches(pairs, 64))
    assert sorted(one.id for part in parts for one in part) == sorted(one.id for one in pairs)
    assert all(2 * len(part) * max(len(side) for one in part for side in one[:2]) <= 64 for part in parts)
    assert [len(part) for part in micro_batches(pairs[:3], 1)] == [1, 1, 1], "a pair beyond the budget goes alone"


def test_collate_puts_chosen_rows_first_and_pads_on_the_right() -> None:
    pairs = [EncodedPair([7, 8, 4], [7, 4], "a"), EncodedPair([7, 9, 9, 4], [7, 9, 4], "b")]
    batch = collate(pairs, pad_id=5, header=[7], device=torch.device("cpu"))
    assert batch.input_ids.tolist() == [[7, 8, 4, 5], [7, 9, 9, 4], [7, 4, 5, 5], [7, 9, 4, 5]]
    assert batch.last_index.tolist() == [2, 3, 1, 2]
    assert batch.assistant is not None
    assert batch.assistant.tolist() == [[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]


def test_every_epoch_takes_each_pair_at_most_once_in_an_order_of_its_own() -> None:
    steps = batches_of(10, config(batch_pairs=4, epochs=3))
    assert [len(step) for step in steps] == [4] * 6
    epochs = [steps[start] + steps[start + 1] for start in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs) and epochs[0] != epochs[1]
    assert batches_of(10, config(batch_pairs=4, epochs=3, max_steps=5)) == steps[:5]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"encoder": "linear"}, "encoder = 'linear' needs n_latents"),
        ({"encoder": "sae", "n_latents": 3}, "encoder = 'sae' takes no n_latents"),
        ({"encoder": "random_sae", "n_latents": 3}, "k = 0 does not go with encoder = 'random_sae'"),
        ({"encoder": "random_sae", "n_latents": 3, "k": 4}, "k = 4 is larger than n_latents = 3"),
        ({"selection": "validation"}, "needs validation_fraction > 0"),
        ({"selection": "test", "max_steps": 3}, "set max_steps = 0"),
        ({"decay_fraction": 0.2}, "decay_fraction = 0.2 goes with schedule = 'warmup_stable_decay', not 'cosine'"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(**changes)
