"""Cached states, SparseRM's heads and SAFER's score as jobs: a tiny Llama, an SAE on it, pairs and a benchmark."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import HIDDEN, Stop, edit_json, edit_tensors, job_context, learnable_pairs, pair, read_rows, same_bytes, save_backbone, write_rows

from sarm.backbone.decoder import hidden_states
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.reward_models.sparse_heads import load_head
from sarm.checkpoints.saes.files import save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae, save_sparse_encoder
from sarm.checkpoints.saes.imported import ImportedSAE
from sarm.config.related import HarvestConfig, SaferConfig, SparseRMConfig, StateScoringConfig
from sarm.config.score import ScoringConfig
from sarm.config.weights import SAEExportConfig
from sarm.data.pairs import conversation
from sarm.data.preferences import DataError, Message, Preference
from sarm.data.states import StatedItem, held_out, read_states, write_states
from sarm.data.tokens import ConversationTokenizer, assistant_start
from sarm.job import Interrupted, UsageProblem
from sarm.jobs.related.safer import fit_safer
from sarm.jobs.related.score import score_states
from sarm.jobs.related.sparse_rm import train_sparse_rm
from sarm.jobs.related.states import harvest_states
from sarm.jobs.score.benchmark import score_benchmark
from sarm.jobs.weights.export_sae import export_sae
from sarm.reward.sparse_rm import Activations, Projections
from sarm.sae.model import TopKSAE
from sarm.sae.sparse_encoder import SparseEncoder

LAYER, LATENTS, PAIRS = 2, 48, 60


def tiny_sae(*, k: int = 6) -> TopKSAE:
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=LATENTS, k=k)
    sae.reset(torch.Generator().manual_seed(3))
    sae.normalize_decoder()
    return sae


def benchmark_items() -> list[Preference]:
    prompt = (Message(role="user", content="tell me about the dog"),)
    return [
        Preference(
            id=str(number),
            prompt=prompt,
            chosen=(f"the {'cat ' * number}is good.",),
            rejected=("it was bad.", f"an awful {'dog ' * number}.", "one two three."),
            subset="Safety",
        )
        for number in range(5)
    ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backbone, data, SAE, and the states of pairs and benchmark, harvested once."""
    folder = tmp_path_factory.mktemp("ground")
    save_backbone(folder / "backbone")
    write_rows(folder / "data", "train.jsonl", learnable_pairs(PAIRS))
    write_rows(folder / "data", "evaluation.jsonl", learnable_pairs(PAIRS))
    write_rows(folder / "data", "rewardbench2.jsonl", benchmark_items())
    (folder / "sae").mkdir()
    save_sae(folder / "sae", tiny_sae(), layer=LAYER)
    found = {"backbone": folder / "backbone", "data": folder / "data", "sae": folder / "sae"}
    for items in ("train", "evaluation", "rewardbench2"):
        found[items] = harvested(folder / items, found, items=items)
    return found


def harvested(folder: Path, ground: dict[str, Path], **changes: Any) -> Path:
    context = job_context(folder, inputs={"backbone": ground["backbone"], "items": ground["data"]}, threads=1)
    harvest_states(HarvestConfig(**{"layer": LAYER, "batch_tokens": 256, **changes}), context)
    return context.output


def trained(folder: Path, ground: dict[str, Path], *, cached: str | Path = "train", stop: Stop | None = None, **changes: Any) -> Path:
    states = cached if isinstance(cached, Path) else ground[cached]
    context = job_context(folder, inputs={"states": states, "sae": ground["sae"], "backbone": ground["backbone"]}, stop=stop, threads=1)
    values = {"layer": LAYER, "per_side": 4, "width": 8, "epochs": 15, "batch_pairs": 8, "learning_rate": 0.02, **changes}
    train_sparse_rm(SparseRMConfig(**values), context)
    return context.output


def scored(folder: Path, ground: dict[str, Path], model: Path, benchmark: str = "rewardbench2") -> list[float]:
    inputs = {"model": model, "states": ground[benchmark], "benchmark": ground["data"]}
    context = job_context(folder, inputs=inputs, threads=1)
    score_states(StateScoringConfig.model_validate({"benchmark": benchmark}), context)
    return flat(context.output)


def flat(folder: Path) -> list[float]:
    return [reward for row in read_rows(folder / "rewards.jsonl") for reward in (*row["chosen_rewards"], *row["rejected_rewards"])]


def facts(folder: Path, name: str = "training.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def direct_states(ground: dict[str, Path], reply: str, prompt: tuple[Message, ...]) -> tuple[torch.Tensor, list[int], list[int]]:
    """States `[seq, hidden_size]` of one conversation alone, its ids and the assistant's header."""
    tokenizer = ConversationTokenizer(load_tokenizer(ground["backbone"]))
    ids = tokenizer.encode(conversation(prompt, reply), max_length=256).ids
    backbone = load_truncated_backbone(ground["backbone"], layer=LAYER, dtype=torch.float32)
    with torch.no_grad():
        return hidden_states(backbone, torch.tensor([ids]), [LAYER])[LAYER][0], ids, tokenizer.assistant_header()


def test_states_are_those_of_each_conversation_s_end_of_turn_in_the_items_order(ground: dict[str, Path]) -> None:
    cached, items = read_states(ground["rewardbench2"]), benchmark_items()
    assert [item.id for item in cached.items] == [item.id for item in items]
    replies = [(item, reply) for item in items for reply in (*item.chosen, *item.rejected)]
    assert len(replies) == len(cached.states) == 20
    for state, (item, reply) in zip(cached.states, replies, strict=True):
        alone, ids, _ = direct_states(ground, reply, item.prompt)
        assert torch.allclose(state, alone[len(ids) - 1], atol=1e-5)


def test_states_of_pairs_lie_chosen_then_rejected(ground: dict[str, Path]) -> None:
    chosen, rejected = read_states(ground["train"]).pairs()
    first = learnable_pairs(1)[0]
    assert torch.allclose(chosen[0], direct_states(ground, first.chosen[0], first.prompt)[0][-1], atol=1e-5)
    assert torch.allclose(rejected[0], direct_states(ground, first.rejected[0], first.prompt)[0][-1], atol=1e-5)
    assert facts(ground["train"], "conditions.json")["replies"] == 2 * PAIRS


@pytest.mark.parametrize("pooling", ["last_content", "mean"])
def test_another_pooling_reads_the_reply_s_other_tokens(tmp_path: Path, ground: dict[str, Path], pooling: str) -> None:
    cached = read_states(harvested(tmp_path, ground, items="rewardbench2", pooling=pooling))
    item = benchmark_items()[3]
    alone, ids, header = direct_states(ground, item.chosen[0], item.prompt)
    start = assistant_start(ids, header)
    expected = alone[-2] if pooling == "last_content" else alone[start:-1].mean(dim=0)
    assert len(alone[start:-1]) > 2 and torch.allclose(cached.states[12], expected, atol=1e-5)


def test_a_second_harvest_writes_the_same_bytes_and_takes_the_first_pairs_alone(tmp_path: Path, ground: dict[str, Path]) -> None:
    same_bytes(harvested(tmp_path / "again", ground, items="train"), ground["train"])
    some = read_states(harvested(tmp_path / "some", ground, items="train", max_pairs=7))
    assert len(some.items) == 7 and torch.allclose(some.states, read_states(ground["train"]).states[:14], atol=1e-5)


def test_a_part_of_a_benchmark_is_harvested_and_scored_alone(tmp_path: Path, ground: dict[str, Path]) -> None:
    model = trained(tmp_path / "model", ground, epochs=1)
    whole = scored(tmp_path / "whole", ground, model)
    for name, changes, count in (("limit", {"limit": 2}, 8), ("subset", {"subset": "Safety", "limit": 3}, 12)):
        part = {**ground, "rewardbench2": harvested(tmp_path / name, ground, items="rewardbench2", **changes)}
        assert scored(tmp_path / f"{name}-scores", part, model) == pytest.approx(whole[:count], abs=1e-5)
    with pytest.raises(UsageProblem, match="no item of subset 'Math'"):
        harvested(tmp_path / "none", ground, items="rewardbench2", subset="Math")


def test_a_harvest_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path, ground: dict[str, Path]) -> None:
    inputs = {"backbone": ground["backbone"], "items": ground["data"]}
    config = HarvestConfig(layer=LAYER, items="train", batch_tokens=256)
    for after in (1, 3):
        with pytest.raises(Interrupted, match="checkpoint written; the same command continues"):
            harvest_states(config, job_context(tmp_path, inputs=inputs, stop=Stop(after=after), threads=1))
    last = Stop()
    resumed = job_context(tmp_path, inputs=inputs, stop=last, threads=1)
    harvest_states(config, resumed)
    same_bytes(resumed.output, ground["train"])
    done, total, unit, _ = last.notes[0]
    assert unit == "tokens" and done > total / 10, "it went on where it had stopped"


def test_a_head_learns_pairs_that_words_tell_apart_and_its_choice_is_written_down(tmp_path: Path, ground: dict[str, Path]) -> None:
    model = trained(tmp_path, ground, validation_fraction=0.3, epochs=40)
    found = facts(model)
    assert found["validation_accuracy"] > 0.8, "the words tell the sides apart"
    assert found["margin"] in (0.5, 1.0, 2.0) and [one["margin"] for one in found["tried"]] == [0.5, 1.0, 2.0]
    assert found["validation_accuracy"] == max(one["validation_accuracy"] for one in found["tried"])
    assert found["pairs"] + found["validation_pairs"] == PAIRS and min(found["pairs"], found["validation_pairs"]) > 0
    rewards = scored(tmp_path / "scores", ground, model, "evaluation")
    assert sum(one > other for one, other in zip(rewards[::2], rewards[1::2], strict=True)) > 0.7 * PAIRS


def test_parameters_are_counted_and_shown_as_a_share_of_the_backbone(tmp_path: Path, ground: dict[str, Path]) -> None:
    found = facts(trained(tmp_path, ground, epochs=1))
    assert found["trainable_parameters"] == 8 * 8 + 8 + 8 and found["fixed_parameters"] == 8 * HIDDEN
    tensors = load_file(ground["backbone"] / "model.safetensors")
    whole = sum(value.numel() for name, value in tensors.items() if name.startswith("model."))
    assert found["backbone_parameters"] == whole > found["kept_backbone_parameters"]
    assert found["share_of_backbone"] == pytest.approx(80 / whole)


def test_the_directions_are_the_decoder_columns_of_the_ranked_latents(tmp_path: Path, ground: dict[str, Path]) -> None:
    model = trained(tmp_path, ground, epochs=1)
    head, _ = load_head(model)
    listed = json.loads((model / "latents.json").read_text())
    assert isinstance(head.reader, Projections) and head.reader.normalization == "standardize"
    columns = tiny_sae().decoder.weight.detach().T[[one["latent"] for one in listed]]
    assert torch.equal(head.reader.directions, columns)
    values = [one["separation"] for one in listed]
    assert values[:4] == sorted(values[:4], reverse=True) and values[4:] == sorted(values[4:]) and values[3] >= 0 >= values[4]


CONTROLS: dict[str, dict[str, Any]] = {
    "activations": {"inputs": "activations"},
    "dense": {"inputs": "dense"},
    "random": {"directions": "random"},
    "random-columns": {"directions": "random_columns"},
    "linear": {"head": "linear"},
    "bradley-terry": {"loss": "bradley_terry"},
    "bce": {"loss": "bce"},
    "raw": {"states": "raw"},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_trains_is_read_back_and_scores(tmp_path: Path, ground: dict[str, Path], name: str) -> None:
    model = trained(tmp_path / "one", ground, epochs=3, **CONTROLS[name])
    rewards = scored(tmp_path / "scores", ground, model)
    assert len(rewards) == 20 and len(set(rewards)) > 10
    assert rewards != scored(tmp_path / "plain-scores", ground, trained(tmp_path / "plain", ground, epochs=3))
    assert (facts(model)["margin"] is None) == (CONTROLS[name].get("loss", "margin") != "margin")
    same_bytes(model, trained(tmp_path / "two", ground, epochs=3, **CONTROLS[name]))


def test_the_seed_changes_split_and_head(tmp_path: Path, ground: dict[str, Path]) -> None:
    one, two = (trained(tmp_path / str(seed), ground, epochs=1, seed=seed) for seed in (0, 1))
    assert (one / "head.safetensors").read_bytes() != (two / "head.safetensors").read_bytes()
    items = read_states(ground["train"]).items
    splits = [[held_out(item, fraction=0.5, seed=seed) for item in items] for seed in (0, 1)]
    assert splits[0] != splits[1] and 0 < sum(splits[0]) < PAIRS


def test_pairs_of_one_prompt_are_never_on_both_sides_of_the_split(ground: dict[str, Path]) -> None:
    items = read_states(ground["train"]).items
    sides: dict[str, set[bool]] = {}
    for item in items:
        sides.setdefault(item.prompt, set()).add(held_out(item, fraction=0.5, seed=0))
    assert len(sides) < len(items) and all(len(one) == 1 for one in sides.values())


@pytest.mark.parametrize("changes", [{}, {"inputs": "activations", "head": "linear"}, {"inputs": "dense"}])
def test_a_whole_model_is_scored_as_its_cached_states_are(tmp_path: Path, ground: dict[str, Path], changes: dict[str, Any]) -> None:
    model = trained(tmp_path / "model", ground, epochs=3, whole=True, **changes)
    context = job_context(tmp_path / "benchmark", inputs={"model": model, "benchmark": ground["data"]}, threads=1)
    score_benchmark(ScoringConfig(benchmark="rewardbench2", batch_tokens=256), context)
    assert flat(context.output) == pytest.approx(scored(tmp_path / "cached", ground, model), abs=1e-5)
    loaded = load_reward_model(model, dtype=torch.bfloat16)
    assert next(loaded.model.parameters()).dtype == torch.bfloat16 and loaded.score.weight.dtype == torch.float32
    with pytest.raises(UsageProblem, match="keeps the files"):
        save_reward_model(tmp_path / "copy", loaded, encoder="sae", tokenizer=None)
    assert not [path for path in model.iterdir() if str(tmp_path) in path.read_text(errors="ignore")]


def test_safer_needs_no_training_and_scores_like_a_sarm_with_signs_for_weights(tmp_path: Path, ground: dict[str, Path]) -> None:
    context = job_context(tmp_path, inputs={"states": ground["train"], "sae": ground["sae"], "backbone": ground["backbone"]})
    fit_safer(SaferConfig(layer=LAYER, selected=5, whole=True), context)
    listed = json.loads((context.output / "latents.json").read_text())
    scores = [abs(one["score"]) for one in listed]
    assert len(listed) == 5 and scores == sorted(scores, reverse=True) and facts(context.output)["trainable_parameters"] == 0
    sae, states = tiny_sae(), read_states(ground["rewardbench2"]).states
    latents = sae.encode(sae.prepare(states)).latents
    expected = sum(latents[:, one["latent"]] * (1 if one["score"] > 0 else -1) for one in listed)
    assert scored(tmp_path / "scores", ground, context.output) == pytest.approx(expected.tolist(), abs=1e-5)
    benchmark = job_context(tmp_path / "whole", inputs={"model": context.output, "benchmark": ground["data"]}, threads=1)
    score_benchmark(ScoringConfig(benchmark="rewardbench2"), benchmark)
    assert flat(benchmark.output) == pytest.approx(expected.tolist(), abs=1e-4)


def test_an_imported_sae_ranks_and_projects_like_any(tmp_path: Path, ground: dict[str, Path]) -> None:
    sae = SparseEncoder(hidden_size=HIDDEN, n_latents=LATENTS, activation="jumprelu", normalization="norm-sqrt-d", subtracts_bias=False)
    sae.reset(torch.Generator().manual_seed(5))
    save_sparse_encoder(tmp_path / "sae", ImportedSAE(sae=sae, layer=None, layout="Gemma Scope"))
    ground = {**ground, "sae": tmp_path / "sae"}
    for number, changes in enumerate(({}, {"inputs": "activations"})):
        model = trained(tmp_path / str(number), ground, epochs=2, **changes)
        head, _ = load_head(model)
        if isinstance(head.reader, Activations):
            states = read_states(ground["train"]).states
            with torch.no_grad():
                found = head.reader(states)
                assert torch.allclose(found, sae.encode(sae.prepare(states)).latents[:, head.reader.chosen]) and bool((found > 0).any())
        else:
            assert isinstance(head.reader, Projections) and head.reader.normalization == "norm-sqrt-d"


def test_a_stopped_training_says_that_it_begins_again(tmp_path: Path, ground: dict[str, Path]) -> None:
    with pytest.raises(Interrupted, match="starts this step again"):
        trained(tmp_path, ground, stop=Stop(after=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 3}, "states after block 2, SAE of block 2, head for block 3"),
        ({"per_side": 25}, "per_side = 25 takes 50 of 48 latents.*set sparse.per_side"),
        ({"directions": "random_columns", "per_side": 25}, "per_side = 25"),
        ({"max_pairs": 1}, "splits 1 pairs into"),
        ({"learning_rate": 1e30, "loss": "bce", "epochs": 30}, "the loss is (nan|inf).*lower sparse.learning_rate"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(
    tmp_path: Path, ground: dict[str, Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageProblem, match=message):
        trained(tmp_path, ground, **changes)


def test_a_whole_model_of_another_pooling_is_refused(tmp_path: Path, ground: dict[str, Path]) -> None:
    states = harvested(tmp_path / "states", ground, items="train", pooling="mean")
    trained(tmp_path / "head", ground, cached=states, epochs=1)
    with pytest.raises(UsageProblem, match="whole = true needs pooling"):
        trained(tmp_path / "whole", ground, cached=states, whole=True)


def test_states_of_another_benchmark_layer_or_width_are_refused(tmp_path: Path, ground: dict[str, Path]) -> None:
    model = trained(tmp_path / "model", ground, epochs=1)
    with pytest.raises(UsageProblem, match="other items than rewardbench2"):
        scored(tmp_path / "a", {**ground, "rewardbench2": ground["evaluation"]}, model)
    deeper = harvested(tmp_path / "deeper", ground, items="rewardbench2", layer=3)
    with pytest.raises(UsageProblem, match="after block 2, the states have 16 after block 3"):
        scored(tmp_path / "b", {**ground, "rewardbench2": deeper}, model)
    with pytest.raises(UsageProblem, match="a pair has one of each"):
        trained(tmp_path / "c", ground, cached="rewardbench2")


def test_a_head_that_is_not_whole_is_refused_by_name(tmp_path: Path, ground: dict[str, Path]) -> None:
    model = trained(tmp_path / "model", ground, epochs=1)
    for number, (change, message) in enumerate(
        (
            (lambda folder: edit_tensors(folder / "head.safetensors", lambda found: found.pop("score.weight")), "no tensor 'score.weight'"),
            (lambda folder: edit_tensors(folder / "head.safetensors", lambda found: found.update(x=torch.zeros(1))), "unknown tensor 'x'"),
            (lambda folder: edit_json(folder / "head.json", width=5), r"shape \[8, 8\], head.json asks for \[5, 8\]"),
            (lambda folder: edit_json(folder / "head.json", inputs="dreams"), "head.json"),
            (lambda folder: edit_json(folder / "head.json", inputs="activations"), "needs the convention of its SAE"),
        )
    ):
        broken = shutil.copytree(model, tmp_path / f"broken-{number}")
        change(broken)
        with pytest.raises(UsageProblem, match=message):
            load_head(broken)


def test_damaged_or_torn_states_are_refused(tmp_path: Path) -> None:
    item = StatedItem(id="a", prompt="0", chosen=1, rejected=1)
    with pytest.raises(ValueError, match="3 states for 2 replies"):
        write_states(tmp_path, [item], torch.zeros(3, 4))
    with pytest.raises(DataError, match="no cached states"):
        read_states(tmp_path)
    write_states(tmp_path, [item], torch.zeros(2, 4))
    (tmp_path / "items.jsonl").write_text((tmp_path / "items.jsonl").read_text() * 2)
    with pytest.raises(DataError, match="2 states for 4 replies"):
        read_states(tmp_path)


def test_pairs_that_training_drops_are_not_harvested(tmp_path: Path, ground: dict[str, Path]) -> None:
    pairs = [*learnable_pairs(4), pair(9, chosen="a dog.", rejected="a dog.")]
    write_rows(tmp_path / "data", "train.jsonl", pairs)
    cached = read_states(harvested(tmp_path / "states", {**ground, "data": tmp_path / "data"}, items="train"))
    assert [item.id for item in cached.items] == [one.id for one in pairs[:4]]
    assert facts(tmp_path / "states" / "output", "conditions.json")["left_out"] == 1


@pytest.mark.parametrize("layout", ["sae-lens", "sparsify"])
def test_an_exported_sae_is_read_back_with_the_same_latents(tmp_path: Path, ground: dict[str, Path], layout: str) -> None:
    context = job_context(tmp_path, locations={"sae": ground["sae"]})
    export_sae(SAEExportConfig.model_validate({"sae_digest": "0", "layout": layout, "model_name": "tiny"}), context)
    back = read_foreign_sae(context.output)
    sae, states = tiny_sae(), read_states(ground["train"]).states
    prepared = sae.prepare(states)
    latents = sae.encode(prepared).latents.relu()
    found = back.sae.encode(back.sae.prepare(states) if layout == "sae-lens" else prepared).latents
    torch.testing.assert_close(found, latents, rtol=1e-3, atol=1e-3)
    assert facts(context.output, "export.json")["normalize_first"] == ("none" if layout == "sae-lens" else "standardize")
    assert back.layer == (LAYER if layout == "sae-lens" else None)
