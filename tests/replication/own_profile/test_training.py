"""Sizes of trainings that fit the text, the model and the machine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.own_profile.findings import BenchmarkFacts, Findings
from replication.own_profile.training import pass_sizes, resources, sizes
from replication.settings.profiles import Shape
from replication.usage_problems import UsageProblems
from sarm.config.train import SAETrainingConfig

SMALL = Shape(num_hidden_layers=4, hidden_size=256, intermediate_size=704, num_attention_heads=4, num_key_value_heads=2, vocab_size=4096)
LARGE = SMALL.model_copy(update={"hidden_size": 4096})


def findings(*, documents: int = 1000, each: float = 10.0, gpus: int = 0, bfloat16: bool = False, positions: int = 8192) -> Findings:
    pairs = {"rows": 100, "looked_at": 100, "kept": 100, "held_out": 20, "form": "", "skip_prompts": False, "left_out": {}, "not_read": {}}
    text = {"rows": documents, "looked_at": 10, "column": "text", "sentences_per_document": each, "tokens_per_sentence": 20.0}
    model = {"model_type": "llama", "positions": positions, "end_of_turn": "e", "eos": "e", "pad": "p", "pad_is_its_own": True}
    facts: dict[str, Any] = {
        "machine": {"gpus": gpus, "bfloat16": bfloat16},
        "model": model,
        "pairs": {**pairs, "tokens_per_pair": 100, "longest": 200},
        "text": text,
    }
    return Findings.model_validate(facts)


@pytest.mark.parametrize(("documents", "each"), [(1, 1.0), (9, 1000.0), (1000, 0.1)])
def test_too_little_text_is_refused_with_what_is_needed(documents: int, each: float) -> None:
    with pytest.raises(UsageProblems, match=rf"--text: {documents} documents with about \d+ sentences; an SAE needs 10 documents with 320"):
        sizes(findings(documents=documents, each=each), SMALL, batch_tokens=1024)


@given(documents=st.integers(10, 10**9), each=st.floats(1, 1000))
def test_the_text_is_passed_once_at_most_in_enough_steps(documents: int, each: float) -> None:
    if documents * each * 0.9 < 320:
        return
    sae = sizes(findings(documents=documents, each=each), SMALL, batch_tokens=1024).values["sae"]
    config = SAETrainingConfig(layer=1, n_latents=32, k=2, **sae)
    assert config.vectors <= min(50_000_000, documents * each * 0.9) and config.vectors % config.batch_vectors == 0
    assert config.buffer_vectors % config.batch_vectors == 0 and config.held_out_vectors >= 2
    assert config.vectors // config.batch_vectors >= 10


def test_precision_follows_the_machine() -> None:
    cpu = sizes(findings(), SMALL, batch_tokens=1024)
    assert cpu.values["reward"]["dtype"] == cpu.values["sae"]["backbone_dtype"] == cpu.values["scoring"]["dtype"] == "float32"
    assert "CPU" in cpu.why["reward.dtype"] and not any("gpus" in one for one in resources(findings(), batch_tokens=8).values())
    modern = findings(gpus=1, bfloat16=True)
    assert "dtype" not in sizes(modern, SMALL, batch_tokens=1024).values["reward"]
    assert all(one["gpus"] == 1 for one in resources(modern, batch_tokens=8).values())
    old = sizes(findings(gpus=1), SMALL, batch_tokens=1024)
    assert old.values["reward"]["dtype"] == "float32" and "without bfloat16" in old.why["reward.dtype"]


def test_lengths_and_directions_follow_the_model() -> None:
    short = sizes(findings(positions=512), SMALL, batch_tokens=1024)
    assert short.values["reward"]["max_length"] == short.values["scoring"]["max_length"] == short.values["contexts"]["max_length"] == 512
    assert short.values["sparse"] == {"per_side": 11} and "512 positions" in short.why["reward.max_length"]
    long = sizes(findings(positions=0), LARGE, batch_tokens=1024)
    assert "max_length" not in long.values["reward"] and "sparse" not in long.values
    assert short.values["contexts"]["texts"] == "evaluation"
    items = {"name": "rmbench", "items": 4, "subsets": {"chat": 4}, "completions": 24}
    with_items = findings().model_copy(update={"benchmark": BenchmarkFacts.model_validate(items)})
    assert "texts" not in sizes(with_items, SMALL, batch_tokens=1024).values["contexts"]
    assert all(name.partition(".")[2] in long.values[name.partition(".")[0]] for name in long.why)


def test_passes_are_halved_from_what_suits_the_device() -> None:
    assert pass_sizes(gpus=1) == [16384, 8192, 4096, 2048, 1024, 512]
    assert pass_sizes(gpus=0) == [2048, 1024, 512]
