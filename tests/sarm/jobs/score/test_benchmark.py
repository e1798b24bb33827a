"""Benchmark rewards: in the items' order, equal to those of each row alone, with what was cut and padded on record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from folders import DATA
from tiny import (
    HIDDEN,
    causal_lm,
    edit_tensors,
    job_context,
    learnable_pairs,
    llama_config,
    read_rows,
    save_word_tokenizer,
    write_corpus,
    write_rows,
)
from tiny_scoring import flat, items, score, tiny_sarm
from transformers import PreTrainedTokenizerFast

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.score import ScoringConfig
from sarm.config.train import RewardTrainingConfig, SAETrainingConfig
from sarm.config.weights import WeightsConfig
from sarm.data.pairs import conversation
from sarm.data.sources import Place, rewardbench2_preference
from sarm.data.tokens import ConversationTokenizer, token_budget_batches
from sarm.job import UsageProblem
from sarm.jobs.score.benchmark import score_benchmark
from sarm.jobs.train.reward import train_reward
from sarm.jobs.train.sae import train_sae
from sarm.jobs.weights.fetch import fetch_weights
from sarm.reward.models import DenseRewardModel, RewardModel
from sarm.scoring.inference import RowBatch, padding_share, score_rows

SAFETY = DATA / "rewardbench2" / "safety.jsonl"
ENGLISH = DATA / "models" / "english4m"
LLAMA3 = DATA / "tokenizers" / "llama3"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", tiny_sarm(), encoder="sae", tokenizer=folder / "words")
    return {"model": folder / "model", "benchmark": write_rows(folder / "benchmark", "rewardbench2.jsonl", items())}


def alone(model: RewardModel, tokenizer: ConversationTokenizer, *, max_length: int = 2048) -> list[float]:
    """Each completion's reward from a row of its own, without padding."""
    found = []
    for item in items():
        for reply in (*item.chosen, *item.rejected):
            ids = tokenizer.encode(conversation(item.prompt, reply), max_length=max_length).ids
            with torch.no_grad():
                found.append(float(model(torch.tensor([ids]), torch.tensor([len(ids) - 1])).rewards))
    return found


def test_rewards_stand_in_the_items_order_and_equal_those_of_each_row_alone(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, conditions = score(tmp_path, inputs)
    assert [(row["id"], row["subset"]) for row in rows] == [(item.id, item.subset) for item in items()]
    assert [(len(row["chosen_rewards"]), len(row["rejected_rewards"])) for row in rows] == [(1, 3)] * 10 + [(2, 1)]
    tokenizer = ConversationTokenizer(load_tokenizer(inputs["model"]))
    assert flat(rows) == pytest.approx(alone(load_reward_model(inputs["model"]), tokenizer), abs=1e-5)
    # No two conversations are the same; equal ones may differ in rounding, under some releases of torch.
    conversations = {(item.prompt, reply) for item in items() for reply in (*item.chosen, *item.rejected)}
    assert len(conversations) == 29 and len(set(flat(rows))) >= 29
    assert (conditions["items"], conditions["completions"], conditions["truncated_completions"]) == (11, 43, 0)


@pytest.mark.parametrize("batch_tokens", [1, 64, 100000])
def test_batch_shape_changes_rounding_alone(tmp_path: Path, inputs: dict[str, Path], batch_tokens: int) -> None:
    plain, _ = score(tmp_path / "plain", inputs)
    other, conditions = score(tmp_path / "other", inputs, batch_tokens=batch_tokens)
    assert flat(other) == pytest.approx(flat(plain), abs=1e-5)
    assert (conditions["padding_share"] == 0) == (batch_tokens == 1)


def test_same_job_twice_gives_the_same_bytes(tmp_path: Path, inputs: dict[str, Path]) -> None:
    for name in ("one", "two"):
        score(tmp_path / name, inputs)
    assert (tmp_path / "one/output/rewards.jsonl").read_bytes() == (tmp_path / "two/output/rewards.jsonl").read_bytes()


def test_truncation_is_counted_per_item_and_in_all(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, conditions = score(tmp_path, inputs, max_length=24)
    assert conditions["truncated_completions"] == sum(row["truncated"] for row in rows) > 0
    tokenizer = ConversationTokenizer(load_tokenizer(inputs["model"]))
    assert flat(rows) == pytest.approx(alone(load_reward_model(inputs["model"]), tokenizer, max_length=24), abs=1e-5)
    with pytest.raises(UsageProblem, match=r"rewardbench2 item '.*': .* would lose the end-of-turn token"):
        score(tmp_path / "right", inputs, max_length=24, truncation="right")


def test_double_bos_with_its_first_masked_equals_a_single_one(tmp_path: Path, inputs: dict[str, Path]) -> None:
    single, _ = score(tmp_path / "single", inputs)
    masked, _ = score(tmp_path / "masked", inputs, bos="double-first-masked")
    double, _ = score(tmp_path / "double", inputs, bos="double")
    assert flat(masked) == pytest.approx(flat(single), abs=1e-4)
    assert max(abs(a - b) for a, b in zip(flat(double), flat(single), strict=True)) > 1e-2


def test_rows_that_lost_a_bos_to_truncation_are_not_masked(inputs: dict[str, Path]) -> None:
    model, rows = load_reward_model(inputs["model"]), [[0, 0, 9, 10, 4], [0, 9, 10, 4], [11, 9, 10, 4]]
    found: dict[int, float] = {}

    def take(batch: RowBatch) -> None:
        found.update(zip(batch.indices, batch.rewards.tolist(), strict=True))

    score_rows(model, rows, pad_id=5, batch_tokens=100, first_masked=True, take=take)
    with torch.no_grad():
        expected = [float(model(torch.tensor([row]), torch.tensor([len(row) - 1])).rewards) for row in rows[1:]]
    assert [found[1], found[2]] == pytest.approx(expected, abs=1e-5)
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_limit_scores_the_first_items_alone(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, conditions = score(tmp_path, inputs, limit=3)
    assert [row["id"] for row in rows] == ["100", "99", "98"] and conditions["limit"] == 3


def test_reward_that_is_not_finite_names_the_item(tmp_path: Path, inputs: dict[str, Path]) -> None:
    save_reward_model(tmp_path / "model", tiny_sarm(), encoder="sae", tokenizer=inputs["model"])
    edit_tensors(tmp_path / "model" / "model.safetensors", lambda tensors: tensors["score.weight"].fill_(float("nan")))
    with pytest.raises(UsageProblem, match="item '100' of subset 'Focus': the reward is not finite; score in another dtype"):
        score(tmp_path / "job", {**inputs, "model": tmp_path / "model"})


def test_broken_benchmark_row_is_named(tmp_path: Path, inputs: dict[str, Path]) -> None:
    (tmp_path / "rewardbench2.jsonl").write_text(
        '{"id": "1", "prompt": [{"role": "user", "content": "x"}], "chosen": [], "rejected": ["b"]}\n'
    )
    with pytest.raises(UsageProblem, match=r"rewardbench2\.jsonl:1: chosen: "):
        score(tmp_path / "job", {**inputs, "benchmark": tmp_path})


def test_low_precision_rewards_are_close_and_recorded_as_such(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, conditions = score(tmp_path, inputs, dtype="bfloat16")
    assert conditions["dtype"] == "bfloat16" and all(math.isfinite(reward) for reward in flat(rows))


@pytest.mark.skipif(not SAFETY.exists() or not ENGLISH.is_dir(), reason=f"no real data in {DATA}; set SARM_DATA")
def test_real_safety_rows_are_batched_by_length_with_little_padding(tmp_path: Path) -> None:
    raw = [json.loads(line) for line in SAFETY.read_text(encoding="utf-8").splitlines()]
    rows = [rewardbench2_preference(row, Place("safety.jsonl", number)) for number, row in enumerate(raw, start=1)]
    benchmark = write_rows(tmp_path / "benchmark", "rewardbench2.jsonl", rows)
    torch.manual_seed(0)
    tokenizer = ConversationTokenizer(load_tokenizer(ENGLISH))
    config = llama_config(vocab_size=len(tokenizer.tokenizer), num_hidden_layers=1, max_position_embeddings=2048)
    model = DenseRewardModel(truncated_backbone(config, 1, keep_final_norm=True), hidden_size=HIDDEN).eval()
    save_reward_model(tmp_path / "model", model, encoder="none", tokenizer=ENGLISH)
    scored, conditions = score(tmp_path / "job", {"model": tmp_path / "model", "benchmark": benchmark}, batch_tokens=16384)
    texts = [conversation(row.prompt, completion) for row in rows for completion in (*row.chosen, *row.rejected)]
    assert len(scored) == len(rows) and conditions["completions"] == len(texts)
    lengths = [len(row.ids) for row in tokenizer.encode_many(texts, max_length=2048, names=["x"] * len(texts))]
    # How little is padded depends on the rows at hand: it is what these batches pad, less than half of what the file's order would.
    share = padding_share(lengths, token_budget_batches(lengths, 16384))
    as_they_come = [range(start, min(start + 16, len(lengths))) for start in range(0, len(lengths), 16)]
    assert conditions["padding_share"] == pytest.approx(share, abs=1e-6)
    assert share < padding_share(lengths, as_they_come) / 2


@pytest.mark.skipif(not LLAMA3.is_dir(), reason=f"no Llama-3 tokenizer in {LLAMA3}; set SARM_DATA")
def test_random_llama3_checkpoint_goes_through_every_stage_with_the_real_tokenizer(tmp_path: Path) -> None:
    source = tmp_path / "llama"
    config = llama_config(vocab_size=128256, bos_token_id=128000, eos_token_id=128009, pad_token_id=128004, tie_word_embeddings=True)
    causal_lm(config).save_pretrained(source)
    PreTrainedTokenizerFast(
        tokenizer_file=str(LLAMA3 / "tokenizer.json"),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=(LLAMA3 / "chat_template_llama3_1.jinja").read_text(encoding="utf-8"),
    ).save_pretrained(source)
    fetched = job_context(tmp_path / "fetch", locations={"source": source})
    fetch_weights(WeightsConfig(origin="folder", revision="0" * 64), fetched)
    corpus = write_corpus(tmp_path / "corpus", times=10)
    sae = job_context(tmp_path / "sae", inputs={"backbone": fetched.output, "corpus": corpus}, threads=1)
    train_sae(SAETrainingConfig(layer=2, n_latents=32, k=4, vectors=64, batch_vectors=16, buffer_vectors=64, tokens="last-and-inner"), sae)
    preferences = write_rows(tmp_path / "pairs", "train.jsonl", learnable_pairs(4))
    reward = job_context(tmp_path / "reward", inputs={"backbone": fetched.output, "preferences": preferences, "sae": sae.output}, threads=1)
    recipe = {"sae_trains": True, "reconstruction_weight": 1.0, "learning_rate": 1e-2}
    train_reward(RewardTrainingConfig(layer=2, batch_pairs=1, epochs=1, **recipe), reward)
    benchmark = write_rows(tmp_path / "benchmark", "rewardbench2.jsonl", items())
    rows, conditions = score(tmp_path / "scores", {"model": reward.output, "benchmark": benchmark}, batch_tokens=2048)
    tokenizer = ConversationTokenizer(load_tokenizer(reward.output))
    ids = tokenizer.encode(conversation(items()[0].prompt, items()[0].chosen[0]), max_length=999).ids
    assert (ids[0], ids[25], ids[-1]) == (128000, 128009, 128009) and ids.count(128000) == 1
    assert conditions["completions"] == len(flat(rows)) == 43
    expected = alone(load_reward_model(reward.output), tokenizer)
    assert max(expected) - min(expected) > 1e-2
    assert flat(rows) == pytest.approx(expected, abs=1e-5)


def test_a_model_can_be_scored_as_it_was_after_an_epoch(tmp_path: Path) -> None:
    model, benchmark = tmp_path / "model", write_rows(tmp_path / "data", "rewardbench2.jsonl", items())
    save_word_tokenizer(tmp_path / "tokenizer")
    for folder, scale in ((model, 1.0), (model / "epochs" / "1", 2.0)):
        sarm = tiny_sarm()
        torch.nn.init.constant_(sarm.score.weight, scale)
        save_reward_model(folder, sarm, encoder="sae", tokenizer=tmp_path / "tokenizer")
    rewards = {}
    for epoch in (0, 1):
        context = job_context(tmp_path / f"job-{epoch}", inputs={"model": model, "benchmark": benchmark})
        score_benchmark(ScoringConfig(benchmark="rewardbench2", max_length=256, epoch=epoch), context)
        rewards[epoch] = [row["chosen_rewards"][0] for row in read_rows(context.output / "rewards.jsonl")]
    assert rewards[1] == pytest.approx([2 * reward for reward in rewards[0]], rel=1e-5)
    with pytest.raises(UsageProblem, match=r"not kept as it was after epoch 2; train it with reward\.selection=test"):
        context = job_context(tmp_path / "job-2", inputs={"model": model, "benchmark": benchmark})
        score_benchmark(ScoringConfig(benchmark="rewardbench2", max_length=256, epoch=2), context)
