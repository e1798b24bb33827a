"""One model over several devices, played on the CPU by its memory and its disk: the same bits, and nothing where it should not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from baseline_checkpoints import rows_of, write_checkpoint
from tiny import HIDDEN, job_context, llama_config, save_word_tokenizer
from tiny_scoring import items, tiny_sarm

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model, save_reward_model
from sarm.checkpoints.spread import Spread, dealt
from sarm.config.score import ScoringConfig
from sarm.data.tokens import ConversationTokenizer
from sarm.job import EnvironmentProblem
from sarm.jobs.score.benchmark import Batches, all_rewards, place_of
from sarm.reward.models import DenseRewardModel, RewardModel
from sarm.scoring.completions import encode_completions
from sarm.scoring.inference import score_batch


def save_sarm(folder: Path) -> Path:
    save_word_tokenizer(folder / "words")
    save_reward_model(folder / "model", tiny_sarm(), encoder="sae", tokenizer=folder / "words")
    return folder / "model"


def save_scalar(folder: Path) -> Path:
    save_word_tokenizer(folder / "words")
    torch.manual_seed(1)
    model = DenseRewardModel(truncated_backbone(llama_config(), 4, keep_final_norm=True), hidden_size=HIDDEN)
    torch.nn.init.normal_(model.score.weight)
    save_reward_model(folder / "model", model, encoder="none", tokenizer=folder / "words")
    return folder / "model"


def on_cpu_and_disk(folder: Path) -> Spread:
    return Spread(("cpu", "disk"), folder / "offloaded")


def places_of(model: RewardModel) -> dict[str, str]:
    """Where each tensor lies; `meta` for what is kept on disk."""
    return {name: str(tensor.device) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", [save_sarm, save_scalar])
@pytest.mark.parametrize(
    "way", [{}, {"bos": "double-first-masked"}, {"batches": "shared-prompts"}, {"batches": "dataset-order", "batch_rows": 3}]
)
def test_a_spread_model_scores_with_the_same_bits(
    tmp_path: Path, save: Callable[[Path], Path], way: dict[str, Any], dtype: torch.dtype
) -> None:
    folder = save(tmp_path)
    config = ScoringConfig(benchmark="rewardbench2", **way)
    tokenizer = ConversationTokenizer(load_tokenizer(folder), bos=config.bos)
    rows = encode_completions(items(), tokenizer, max_length=config.max_length, overlong="left", name="rewardbench2")
    batches = Batches(config, items(), [row.ids for row in rows])
    whole, spread = (load_reward_model(folder, dtype=dtype, device=place) for place in (torch.device("cpu"), on_cpu_and_disk(tmp_path)))
    places = places_of(spread)
    assert "meta" in places.values() and {place for name, place in places.items() if ".layers." not in name} == {"cpu"}
    assert {place for name, place in places.items() if name.startswith("model.layers.0.")} == {"cpu"}
    assert (tmp_path / "offloaded" / "index.json").exists()
    contexts = (job_context(tmp_path / name, threads=1) for name in ("whole", "spread"))
    found = [all_rewards(model, batches, tokenizer.pad_id, context) for model, context in zip((whole, spread), contexts, strict=True)]
    assert found[0] == found[1] and len(set(found[0])) > 10
    assert places_of(spread) == places, "what was read for a batch is gone again"


@pytest.mark.parametrize("name", ["armorm", "qrm-llama3.1", "grm-mlp", "ldl", "classifier-gemma2", "classifier-qwen3"])
def test_published_heads_stay_on_the_first_device(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "model", name)
    rows = rows_of(name)
    whole, spread = (load_reward_model(folder, device=place) for place in (torch.device("cpu"), on_cpu_and_disk(tmp_path)))
    assert {place for key, place in places_of(spread).items() if not key.startswith("model.layers.")} == {"cpu"}
    assert "meta" in places_of(spread).values()
    one, other = (score_batch(model, rows, list(range(len(rows))), pad_id=0, first_masked=False).rewards for model in (whole, spread))
    assert torch.equal(one, other)


def test_each_block_lies_whole_on_one_device_and_all_else_on_the_first() -> None:
    spread = Spread(("cpu", "cuda:1", "disk"))
    with torch.device("meta"):
        empty = DenseRewardModel(truncated_backbone(llama_config(vocab_size=8), 4, keep_final_norm=True), hidden_size=HIDDEN)
    places = spread.places(empty)
    assert [places[f"layers.{number}"] for number in range(4)] == ["cpu", "cuda:1", "cuda:1", "disk"]
    assert places["embed_tokens"] == places["norm"] == places["rotary_emb"] == "cpu"
    blocks = ("model.layers.1.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight")
    names = (*blocks, "model.norm.weight", "score.weight", "layers.1.weight")
    assert [str(spread.device_of(name, places)) for name in names] == ["cuda:1", "cpu", "cpu", "cpu", "cpu"]


def test_one_process_with_several_gpus_spreads_and_several_processes_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place_of(job_context(tmp_path, gpus=2)) == Spread(("cuda:0", "cuda:1"))
    assert place_of(job_context(tmp_path, gpus=1)) == torch.device("cuda", 0)
    assert place_of(job_context(tmp_path, gpus=2, processes=2)) == torch.device("cuda", 0)
    assert place_of(job_context(tmp_path)) == torch.device("cpu")
    with pytest.raises(EnvironmentProblem, match=r"resources.gpus = 3, but torch sees 2"):
        place_of(job_context(tmp_path, gpus=3))


@pytest.mark.parametrize(
    ("sizes", "begun", "parts", "found"),
    [
        ([1] * 8, 0, 4, [0, 0, 1, 1, 2, 2, 3, 3]),
        ([1] * 8, 1, 2, [0, 0, 0, 0, 1, 1, 1, 1]),
        ([1] * 8, 2, 2, [0, 0, 0, 1, 1, 1, 1, 1]),
        ([2] * 6, 50, 3, [1, 1, 1, 2, 2, 2]),
        ([3, 1, 1, 3], 0, 2, [0, 0, 1, 1]),
        ([5], 9, 1, [0]),
    ],
)
def test_blocks_are_dealt_out_so_that_the_fullest_device_is_as_empty_as_can_be(
    sizes: list[int], begun: int, parts: int, found: list[int]
) -> None:
    assert dealt(sizes, begun=begun, parts=parts) == found


def test_a_model_of_70b_on_two_cards_of_80_gb() -> None:
    """Llama 3.1 70B in bfloat16: 80 blocks of 1.71 GB and 2.1 GB of embedding."""
    block, embedding = 855_654_400 * 2, 128256 * 8192 * 2
    parts = dealt([block] * 80, begun=embedding, parts=2)
    loads = [embedding + parts.count(0) * block, parts.count(1) * block]
    assert sum(loads) / 1e9 == pytest.approx(139.0, abs=0.1) and max(loads) - min(loads) <= 2 * block and max(loads) < 71e9
