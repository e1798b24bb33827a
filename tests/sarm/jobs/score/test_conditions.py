"""Recorded conditions of scoring: the harness's formatting and batches, prompts computed once, parts of a benchmark, resumption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from baseline_checkpoints import rows_of, write_checkpoint
from folders import DATA
from pydantic import ValidationError
from tiny import HIDDEN, Stop, edit_tensors, job_context, llama_config, read_rows, save_word_tokenizer, write_rows
from tiny_scoring import flat, items, score, tiny_sarm
from transformers import Gemma2Config, PreTrainedTokenizerFast
from transformers.utils import is_flash_attn_2_available

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.config.score import ScoringConfig
from sarm.data.harness import HarnessTokenizer
from sarm.data.preferences import DataError, Message
from sarm.data.tokens import ConversationTokenizer, TokenizerProblem
from sarm.job import EnvironmentProblem, Interrupted, UsageProblem
from sarm.jobs.score.benchmark import score_benchmark
from sarm.reward.models import DenseRewardModel, RewardModel
from sarm.scoring.inference import begins_twice, score_batch
from sarm.scoring.shared_rows import chunks_of_groups, common_prefix, score_chunk

LLAMA3 = DATA / "tokenizers" / "llama3"
# Gemma's way: a newline after the turn's end.
NEWLINE_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role + ' ' + m.content }}<|eot_id|> {{ 'on' }}{% endfor %}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", tiny_sarm(), encoder="sae", tokenizer=folder / "words")
    return {"model": folder / "model", "benchmark": write_rows(folder / "benchmark", "rewardbench2.jsonl", items())}


def alone(model: RewardModel, rows: Sequence[Sequence[int]], *, first_masked: bool = False) -> list[float]:
    """Rewards of rows that are each scored by themselves."""
    return [float(score_batch(model, rows, [index], pad_id=0, first_masked=first_masked).rewards) for index in range(len(rows))]


def test_conditions_tell_what_the_model_is(tmp_path: Path, inputs: dict[str, Path]) -> None:
    _, told = score(tmp_path / "plain", inputs)
    parameters = sum(one.numel() for one in tiny_sarm().parameters())
    completions = sum(len(one.chosen) + len(one.rejected) for one in items())
    is_model = {"blocks": 2, "parameters": parameters, "features": 24, "features_active": 4, "scored_tokens": {"<|eot_id|>": completions}}
    assert {name: told[name] for name in is_model} == is_model
    _, shared = score(tmp_path / "shared", inputs, bos="double", batches="shared-prompts")
    assert {name: shared[name] for name in is_model} == is_model


def test_counting_latents_keeps_to_the_tokens_of_one_pass(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark of long conversations fits in scoring, and must not run out of memory after it."""
    seen: list[int] = []

    def watched(model: RewardModel, rows: Sequence[Sequence[int]], indices: Sequence[int], **rest: Any) -> Any:
        seen.append(len(indices) * max(len(rows[index]) for index in indices))
        return score_batch(model, rows, indices, **rest)

    monkeypatch.setattr("sarm.scoring.model_facts.score_batch", watched)
    for batch_tokens, fits in ((64, 64), (100000, 100000)):
        _, told = score(tmp_path / str(batch_tokens), inputs, batch_tokens=batch_tokens)
        assert told["features_active"] == 4 and seen[-1] <= fits
    assert len(seen) == 2 and seen[0] < seen[1]


def test_a_model_that_reads_no_latents_rests_on_no_number_of_them(tmp_path: Path, inputs: dict[str, Path]) -> None:
    dense = DenseRewardModel(truncated_backbone(llama_config(), 1), hidden_size=HIDDEN)
    save_reward_model(tmp_path / "dense", dense, encoder="none", tokenizer=inputs["model"].parent / "words")
    _, told = score(tmp_path / "scored", {**inputs, "model": tmp_path / "dense"})
    assert (told["blocks"], told["features"], told["features_active"]) == (1, HIDDEN, None)


@pytest.mark.parametrize("bos", ["single", "double", "double-first-masked"])
@pytest.mark.parametrize("batch_tokens", [1, 64, 100000])
def test_a_prompt_computed_once_changes_rounding_alone(tmp_path: Path, inputs: dict[str, Path], bos: str, batch_tokens: int) -> None:
    plain, usual = score(tmp_path / "plain", inputs, bos=bos)
    shared, conditions = score(tmp_path / "shared", inputs, bos=bos, batches="shared-prompts", batch_tokens=batch_tokens)
    assert flat(shared) == pytest.approx(flat(plain), abs=1e-5)
    assert conditions["tokens"] == usual["tokens"] == usual["tokens_computed"] > conditions["tokens_computed"]


def test_dataset_order_takes_neighbours_and_changes_rounding_alone(tmp_path: Path, inputs: dict[str, Path]) -> None:
    plain, usual = score(tmp_path / "plain", inputs)
    fixed, conditions = score(tmp_path / "fixed", inputs, batches="dataset-order", batch_rows=8)
    assert flat(fixed) == pytest.approx(flat(plain), abs=1e-5)
    assert conditions["padding_share"] > usual["padding_share"]
    one, conditions = score(tmp_path / "one", inputs, batches="dataset-order", batch_rows=1)
    assert flat(one) == pytest.approx(flat(plain), abs=1e-5) and conditions["padding_share"] == 0


def test_a_gated_model_finds_its_prompt_end_on_either_side_of_the_split(tmp_path: Path) -> None:
    model = load_reward_model(write_checkpoint(tmp_path / "armorm", "armorm"))
    first, second, third = rows_of("armorm")
    # Completions that differ after the header; and prompts that differ already, so that the gate's state lies in what is continued.
    groups = [[first, [*first[:-2], 51, first[-1]]], [second[:5] + third[5:], third]]
    rows = [row for group in groups for row in group]
    found = score_chunk(model, rows, [[0, 1], [2, 3]], pad_id=0, batch_tokens=10_000, first_masked=False)
    rewards = {index: float(reward) for one in found for index, reward in zip(one.indices, one.rewards, strict=True)}
    assert [rewards[index] for index in range(4)] == pytest.approx(alone(model, rows), abs=1e-5)
    assert common_prefix(groups[0]) > 4 and common_prefix(groups[1]) == 1


def test_chunks_hold_each_group_once_and_at_least_one() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 3, 5], [7, 8, 9], [7, 8, 1], [6, 6], [6, 5]]
    assert chunks_of_groups(rows, [[0, 1], [2, 3], [4, 5]], batch_tokens=5) == [[[0, 1], [2, 3]], [[4, 5]]]
    assert chunks_of_groups(rows, [[0, 1], [2, 3], [4, 5]], batch_tokens=1) == [[[0, 1]], [[2, 3]], [[4, 5]]]


def test_windowed_attention_and_rows_without_a_common_token_are_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    shape = {key: getattr(llama_config(), key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    config = Gemma2Config(**shape, num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=8, pad_token_id=5)
    model = DenseRewardModel(truncated_backbone(config, 2, keep_final_norm=True), hidden_size=HIDDEN).eval()
    save_reward_model(tmp_path / "gemma", model, encoder="none", tokenizer=inputs["model"])
    with pytest.raises(UsageProblem, match=r"window; set scoring\.batches=similar-lengths"):
        score(tmp_path / "job", {**inputs, "model": tmp_path / "gemma"}, batches="shared-prompts")
    sarm = load_reward_model(inputs["model"])
    with pytest.raises(UsageProblem, match="share no token"):
        score_chunk(sarm, [[1, 2], [3, 4]], [[0, 1]], pad_id=0, batch_tokens=9, first_masked=False)


def test_a_stopped_scoring_goes_on_after_its_last_whole_batch_with_the_same_bytes(tmp_path: Path, inputs: dict[str, Path]) -> None:
    config = ScoringConfig(benchmark="rewardbench2", batch_tokens=64)
    whole = job_context(tmp_path / "whole", inputs=inputs, threads=1)
    score_benchmark(config, whole)
    with pytest.raises(Interrupted, match=r"stopped after \d+ of 43 completions"):
        score_benchmark(config, job_context(tmp_path / "cut", inputs=inputs, stop=Stop(after=2), threads=1))
    kept = tmp_path / "cut" / "checkpoint" / "rewards.partial.jsonl"
    batches = kept.read_text().splitlines()
    assert len(batches) == 2
    # A kill in the middle of a line: that batch counts as not done.
    kept.write_text(batches[0] + "\n" + batches[1][:20])
    again = job_context(tmp_path / "cut", inputs=inputs, threads=1)
    score_benchmark(config, again)
    assert (again.output / "rewards.jsonl").read_bytes() == (whole.output / "rewards.jsonl").read_bytes()


def test_only_what_is_missing_is_scored_again(tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config = ScoringConfig(benchmark="rewardbench2", batch_tokens=64)
    with pytest.raises(Interrupted):
        score_benchmark(config, job_context(tmp_path, inputs=inputs, stop=Stop(after=3), threads=1))
    calls: list[int] = []
    real = score_batch

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(args[2]))
        return real(*args, **kwargs)

    monkeypatch.setattr("sarm.jobs.score.benchmark.score_batch", counted)
    done = sum(line.count('"batch"') for line in (tmp_path / "checkpoint" / "rewards.partial.jsonl").read_text().splitlines())
    score_benchmark(config, job_context(tmp_path, inputs=inputs, threads=1))
    assert done == 3 and sum(calls) == 43 - sum(len(entry["rows"]) for entry in _partial(tmp_path)[:3])


def _partial(folder: Path) -> list[dict[str, Any]]:
    return read_rows(folder / "checkpoint" / "rewards.partial.jsonl")


def test_one_subset_alone_is_scored_and_an_unknown_one_is_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, conditions = score(tmp_path / "part", inputs, subset="Safety", limit=2)
    assert [row["id"] for row in rows] == ["99", "97"] and {row["subset"] for row in rows} == {"Safety"}
    assert conditions["subset"] == "Safety" and conditions["limit"] == 2
    with pytest.raises(UsageProblem, match="no item of subset 'Sefety'; it has 'Focus', 'Safety', 'Ties'"):
        score(tmp_path / "wrong", inputs, subset="Sefety")


def talk(reply: str = "a good dog.") -> list[Message]:
    return [Message(role="user", content="tell me"), Message(role="assistant", content=reply)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    save_word_tokenizer(tmp_path / "words")
    found = load_tokenizer(tmp_path / "words")
    found.chat_template = NEWLINE_TEMPLATE
    return found


def test_the_harness_scores_what_stands_after_the_turn_and_ours_the_turns_end(tokenizer: Any) -> None:
    harness = HarnessTokenizer(tokenizer, bos="double").encode_many([talk()], max_length=99, overlong="right", names=["x"])[0]
    text = tokenizer.decode(harness.ids[-1:])
    assert text.strip() == "on" and harness.ids[-2] == tokenizer.eos_token_id
    with pytest.raises(DataError, match="does not close the last turn"):
        ConversationTokenizer(tokenizer).encode(talk(), max_length=99)


def test_the_harness_cuts_where_it_is_told_and_scores_what_is_left(tokenizer: Any) -> None:
    def encoded(side: str, bos: str = "double") -> list[int]:
        found = HarnessTokenizer(tokenizer, bos=bos).encode_many([talk()], max_length=4, overlong=side, names=["x"])[0]
        assert found.truncated
        return found.ids

    whole = HarnessTokenizer(tokenizer).encode_many([talk()], max_length=99, overlong="right", names=["x"])[0]
    assert not whole.truncated and len(whole.ids) > 8
    assert encoded("right") == whole.ids[:4] and encoded("left") == whole.ids[-4:]
    tokenizer.truncation_side = "left"
    assert encoded("tokenizer") == whole.ids[-4:]
    tokenizer.truncation_side = "right"
    assert encoded("tokenizer") == whole.ids[:4]
    with pytest.raises(DataError, match=r"x: \d+ tokens exceed max_length = 4"):
        encoded("error")


def test_two_bos_are_kept_masked_or_one_of_them_dropped(tokenizer: Any) -> None:
    def encoded(bos: str) -> list[int]:
        return HarnessTokenizer(tokenizer, bos=bos).encode_many([talk()], max_length=99, overlong="right", names=["x"])[0].ids

    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id, "this tokenizer adds its BOS, as Llama 3's does"
    assert begins_twice(encoded("double")) and encoded("double") == encoded("double-first-masked")
    assert encoded("single") == encoded("double")[1:]


def test_a_pad_token_that_ends_turns_does_not_matter_where_rows_are_pooled_by_length(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    assert HarnessTokenizer(tokenizer).pad_id == tokenizer.eos_token_id
    assert ConversationTokenizer(tokenizer).pad_id == tokenizer.eos_token_id
    with pytest.raises(TokenizerProblem, match="pad equals the end-of-turn"):
        ConversationTokenizer(tokenizer).require_padding()
    tokenizer.chat_template = None
    with pytest.raises(TokenizerProblem, match="no chat template"):
        HarnessTokenizer(tokenizer)


def test_a_model_scored_with_the_harness_equals_its_rows_by_hand(tmp_path: Path, inputs: dict[str, Path]) -> None:
    model = {"formatting": "harness", "bos": "double-first-masked", "batches": "dataset-order", "batch_rows": 8, "truncation": "tokenizer"}
    rows, conditions = score(tmp_path, inputs, **model)
    tokenizer = HarnessTokenizer(load_tokenizer(inputs["model"]))
    turns = [
        [*item.prompt, Message(role="assistant", content=reply)] for item in items() for reply in (*item.chosen, *item.rejected)
    ]
    encoded = tokenizer.encode_many(turns, max_length=2048, overlong="right", names=[""] * len(turns))
    by_hand = alone(load_reward_model(inputs["model"]), [row.ids for row in encoded], first_masked=True)
    assert flat(rows) == pytest.approx(by_hand, abs=1e-5) and conditions["formatting"] == "harness"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_rows": 8}, "only dataset-order has rows"),
        ({"batches": "dataset-order"}, "only dataset-order has rows"),
        ({"truncation": "tokenizer"}, "with formatting = 'end-of-turn' say left, right or error"),
    ],
)
def test_conditions_that_do_not_go_together_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ScoringConfig(benchmark="rewardbench2", **changes)


def test_a_partial_file_keeps_rewards_to_the_last_bit(tmp_path: Path, inputs: dict[str, Path]) -> None:
    save_reward_model(tmp_path / "model", tiny_sarm(), encoder="sae", tokenizer=inputs["model"])
    edit_tensors(tmp_path / "model" / "model.safetensors", lambda tensors: tensors["score.weight"].mul_(1 / 3))
    context = job_context(tmp_path / "job", inputs={**inputs, "model": tmp_path / "model"}, threads=1)
    score_benchmark(ScoringConfig(benchmark="rewardbench2"), context)
    kept = {row: reward for entry in _partial(tmp_path / "job") for row, reward in zip(entry["rows"], entry["rewards"], strict=True)}
    assert [kept[index] for index in range(len(kept))] == flat(read_rows(context.output / "rewards.jsonl"))
    assert all(torch.tensor(value, dtype=torch.float32).item() == value for value in kept.values())


def test_a_kernel_that_is_not_installed_is_told_with_what_to_set(tmp_path: Path, inputs: dict[str, Path]) -> None:
    if is_flash_attn_2_available():
        pytest.skip("flash attention is installed here")
    with pytest.raises(EnvironmentProblem, match=r"attention = 'flash_attention_2' is not installed here; set scoring\.attention=sdpa"):
        score(tmp_path, inputs, attention="flash_attention_2")


@pytest.mark.skipif(not LLAMA3.is_dir(), reason=f"no Llama-3 tokenizer in {LLAMA3}; set SARM_DATA")
def test_the_real_llama3_tokenizer_writes_two_bos_and_ends_with_the_turn() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(LLAMA3 / "tokenizer.json"),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
        chat_template=(LLAMA3 / "chat_template_llama3_1.jinja").read_text(encoding="utf-8"),
    )
    harness = HarnessTokenizer(tokenizer).encode_many([talk()], max_length=999, overlong="tokenizer", names=["x"])[0].ids
    ours = ConversationTokenizer(tokenizer).encode(talk(), max_length=999).ids
    assert harness[:2] == [128000, 128000] and harness[1:] == ours and harness[-1] == 128009
