"""Pretraining: exact resume, no benchmark text, a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from sarm.config.data import MiniatureConfig
from sarm.config.train import PretrainingConfig
from sarm.job import Interrupted, JobContext, Resources
from sarm.jobs.data.miniature import make_miniature
from sarm.jobs.train.backbone import learning_rate, packed_rows, pretrain_backbone, read_texts, split_texts

TINY = PretrainingConfig(
    num_hidden_layers=2,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=2,
    num_key_value_heads=1,
    context=32,
    batch_tokens=256,
    steps=32,
    learning_rate=5e-3,
)
SIZES = {"corpus_documents": 80, "training_pairs": 42, "evaluation_pairs": 14, "benchmark_rows": 4, "ties_prompts": 2, "rmbench_items": 2}


def _context(folder: Path, data: Path | None = None, stop: Callable[[], bool] = lambda: False) -> JobContext:
    for name in ("output", "checkpoint"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return JobContext(
        inputs={"data": data} if data else {},
        output=folder / "output",
        checkpoint=folder / "checkpoint",
        resources=Resources(threads=1),
        locations={},
        progress=lambda *_: None,
        stop_requested=stop,
        log=lambda _: None,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    context = _context(tmp_path_factory.mktemp("data"))
    make_miniature(MiniatureConfig(**SIZES), context)
    return context.output


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    context = _context(tmp_path_factory.mktemp("pretrained"), data)
    pretrain_backbone(TINY, context)
    return context.output


def _stops_after(polls: int) -> Callable[[], bool]:
    count = iter(range(10**9))
    return lambda: next(count) >= polls


def test_a_stopped_and_resumed_run_writes_the_same_bytes(data: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        pretrain_backbone(TINY, _context(tmp_path, data, _stops_after(10)))
    assert not (tmp_path / "output" / "model.safetensors").exists()
    pretrain_backbone(TINY, _context(tmp_path, data))
    for path in pretrained.iterdir():
        assert path.read_bytes() == (tmp_path / "output" / path.name).read_bytes(), path.name


def test_the_folder_loads_with_the_right_special_tokens(pretrained: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(pretrained), AutoTokenizer.from_pretrained(pretrained)
    assert model.config.bos_token_id == tokenizer.bos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert next(model.parameters()).dtype == torch.float32


def test_the_loss_falls(pretrained: Path) -> None:
    losses = [json.loads(line)["loss"] for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == TINY.steps
    assert losses[-1] < losses[0] - 1
    assert json.loads((pretrained / "pretraining.json").read_text())["held_out_loss"] < losses[0]


def test_only_corpus_and_training_pairs_are_read(data: Path, tmp_path: Path) -> None:
    for name in ("corpus.jsonl", "train.jsonl", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    assert len(read_texts(tmp_path)) == SIZES["corpus_documents"] + SIZES["training_pairs"]


def test_rows_hold_every_training_text_before_any_comes_again() -> None:
    texts = [[number] * 8 for number in range(16)]
    config = TINY.model_copy(update={"context": 16, "batch_tokens": 64, "steps": 4})
    rows = packed_rows(texts, config)
    assert rows.shape == (4, 4, 16)
    first, second = rows[:2].flatten().tolist(), rows[2:].flatten().tolist()
    assert sorted(first) == sorted(second) == sorted(token for ids in texts for token in ids)
    assert first != second


def test_held_out_texts_are_not_trained_on() -> None:
    texts = [[number % 30] for number in range(100)]
    training, held_out = split_texts(texts, TINY.model_copy(update={"held_out_fraction": 0.1}))
    assert len(held_out) == 10
    assert not {tuple(ids) for ids in training} & {tuple(ids) for ids in held_out}


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [learning_rate(step, TINY.model_copy(update={"steps": 100})) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == rates[4] == rates[5] == 5e-3
    assert rates[-1] == pytest.approx(5e-4, rel=0.01)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of context"):
        PretrainingConfig(**{**TINY.model_dump(), "batch_tokens": 100})
