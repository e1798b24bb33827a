"""A row that a model cannot read is refused by its name wherever rows meet a backbone: beyond its positions, beyond its embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from authors_checkpoints import random_sarm
from tiny import (
    causal_lm,
    edit_json,
    edit_tensors,
    job_context,
    llama_config,
    pair,
    save_backbone,
    save_word_tokenizer,
    write_corpus,
    write_rows,
)

from sarm.backbone.decoder import filler, positions_of, require_rows
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.config.latents import ContextConfig, SteeringConfig
from sarm.config.related import HarvestConfig
from sarm.config.score import ConversationScoringConfig, ScoringConfig
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.data.preferences import Preference
from sarm.job import UsageProblem
from sarm.jobs.latents.contexts import collect_contexts
from sarm.jobs.latents.steer import steer_rewards
from sarm.jobs.related.states import harvest_states
from sarm.jobs.score.benchmark import score_benchmark
from sarm.jobs.score.conversations import score_conversations
from sarm.jobs.train.reward import train_reward
from sarm.jobs.train.sae import train_sae

Job = Callable[[Path, Path, Path], None]
LONG = "good " * 90 + "."


def items() -> list[Preference]:
    """Two short items and one with a long reply, in two subsets."""
    found = [pair(1), pair(2, chosen=LONG), pair(3)]
    return [one.model_copy(update={"subset": "Safety" if one.id != "p3" else "Math"}) for one in found]


def write_all(folder: Path) -> Path:
    for name in ("rewardbench2.jsonl", "train.jsonl"):
        write_rows(folder, name, items())
    turns = [[{"role": "user", "content": "tell"}, {"role": "assistant", "content": one.chosen[0]}] for one in items()]
    talks = "".join(json.dumps({"messages": one}) + "\n" for one in turns)
    (folder / "talk.jsonl").write_text(talks)
    write_corpus(folder, ["The cat sat. " + LONG])
    return folder


def reward(model: Path, data: Path, out: Path) -> None:
    locations = {"model": model, "conversations": data / "talk.jsonl"}
    score_conversations(ConversationScoringConfig(model_digest="", conversations_digest=""), job_context(out, locations=locations))


def benchmark(model: Path, data: Path, out: Path) -> None:
    score_benchmark(ScoringConfig(benchmark="rewardbench2"), job_context(out, inputs={"model": model, "benchmark": data}))


def steering(model: Path, data: Path, out: Path) -> None:
    config = SteeringConfig(selection="rewardbench2", target="rewardbench2", subset="Safety")
    steer_rewards(config, job_context(out, inputs={"model": model, "selection": data, "target": data}))


def contexts(model: Path, data: Path, out: Path) -> None:
    collect_contexts(ContextConfig(texts="rewardbench2"), job_context(out, inputs={"model": model, "texts": data}))


def states(backbone: Path, data: Path, out: Path) -> None:
    harvest_states(HarvestConfig(items="rewardbench2", layer=2), job_context(out, inputs={"backbone": backbone, "items": data}))


def pair_states(backbone: Path, data: Path, out: Path) -> None:
    harvest_states(HarvestConfig(items="train", layer=2), job_context(out, inputs={"backbone": backbone, "items": data}))


def training(backbone: Path, data: Path, out: Path) -> None:
    config = RewardTrainingConfig(layer=2, encoder="linear", n_latents=8, batch_pairs=1, epochs=1, seed=0, latents="pre_acts")
    train_reward(config, job_context(out, inputs={"backbone": backbone, "preferences": data}))


def sae(backbone: Path, data: Path, out: Path) -> None:
    config = SAETrainingConfig(layer=2, n_latents=8, k=2, batch_vectors=4, vectors=64, max_tokens=128, seed=0)
    train_sae(config, job_context(out, inputs={"backbone": backbone, "corpus": data}))


OF_MODEL: dict[str, tuple[Job, str]] = {
    "reward": (reward, r"talk\.jsonl:2"),
    "benchmark": (benchmark, "rewardbench2 item 'p2'"),
    "steering": (steering, "rewardbench2 item 'p2'"),
    "contexts": (contexts, "rewardbench2 item 'Safety/p2'"),
}
OF_BACKBONE: dict[str, tuple[Job, str]] = {
    "states": (states, "rewardbench2 item 'p2'"),
    "states of pairs": (pair_states, "pair 'p2'"),
    "training": (training, "pair 'p2'"),
    "sae": (sae, r"corpus\.jsonl:1"),
}


def model_of(folder: Path, **config: int) -> Path:
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", random_sarm(), encoder="sae", tokenizer=folder / "words")
    if config:
        raw = {**llama_config(num_hidden_layers=2).to_dict(), **config}
        edit_json(folder / "model" / "config.json", backbone=raw)
    return folder / "model"


@pytest.mark.parametrize("name", [*OF_MODEL, *OF_BACKBONE])
def test_a_row_beyond_the_positions_is_refused_by_name(name: str, tmp_path: Path) -> None:
    data = write_all(tmp_path / "data")
    run, who = {**OF_MODEL, **OF_BACKBONE}[name]
    folder = model_of(tmp_path, max_position_embeddings=64)
    if name in OF_BACKBONE:
        folder = save_backbone(tmp_path / "lm", max_position_embeddings=64)
    with pytest.raises(
        UsageProblem, match=rf"^{who}: \d+ tokens, but the model has 64 positions; lower (--)?max.(length|tokens) to 64"
    ) as told:
        run(folder, data, tmp_path / "out")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [*OF_MODEL, *OF_BACKBONE])
def test_a_token_beyond_the_embeddings_is_refused_by_name(name: str, tmp_path: Path) -> None:
    data = write_all(tmp_path / "data")
    run, _ = {**OF_MODEL, **OF_BACKBONE}[name]
    folder = model_of(tmp_path, vocab_size=9)
    if name in OF_BACKBONE:
        folder = save_backbone(tmp_path / "lm", vocab_size=9)
    else:
        edit_tensors(
            folder / "model.safetensors", lambda held: held.update({"model.embed_tokens.weight": held["model.embed_tokens.weight"][:9]})
        )
    with pytest.raises(
        UsageProblem, match=r"^(talk\.jsonl:1|rewardbench2 item '(Safety/)?p1'|pair 'p1'|corpus\.jsonl:1): token \d+, but the model has 9"
    ):
        run(folder, data, tmp_path / "out")


def test_padding_that_the_model_does_not_know_fills_rows_all_the_same(tmp_path: Path) -> None:
    model = causal_lm(llama_config()).model
    assert filler(model, 5) == 5 and filler(model, 10_000) == 0


def test_scaled_positions_count() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    assert positions_of(llama_config(max_position_embeddings=64)) == 64
    assert positions_of(llama_config(max_position_embeddings=64, rope_parameters=rope)) == 256
    model = causal_lm(llama_config(max_position_embeddings=64)).model
    require_rows(model, [[1] * 64], ["x"])
    with pytest.raises(UsageProblem, match="x: 65 tokens"):
        require_rows(model, [[1] * 65], ["x"])
    assert torch.is_tensor(model.embed_tokens.weight)
