"""Packed pairs give the rewards, losses and gradients of conversations alone, and the last block works for the scored tokens only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairs_of_ids import CPU, SIZES, pairs, rewards_alone
from torch import Tensor, nn
from transformers import Gemma2Config, GemmaConfig, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.packed_forward import can_pack
from sarm.backbone.packed_tokens import Packed, Run
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.reward.models import SARM, DenseRewardModel, LinearEncoderRewardModel, RewardModel
from sarm.reward.pair_batches import collate, micro_batch_losses, micro_batches, packed_batches, row_layout
from sarm.reward.shared_prefix import pack, share, shared_length
from sarm.sae.model import TopKSAE

FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama, attention bias": LlamaConfig(**SIZES, attention_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
}


def model_of(kind: str, config: PretrainedConfig, dtype: torch.dtype = torch.float32, layer: int = 2) -> RewardModel:
    torch.manual_seed(0)
    model: RewardModel
    if kind == "dense":
        model = DenseRewardModel(truncated_backbone(config, layer, keep_final_norm=True), hidden_size=32)
    elif kind == "linear":
        model = LinearEncoderRewardModel(truncated_backbone(config, layer), hidden_size=32, n_latents=64)
    else:
        model = SARM(truncated_backbone(config, layer), TopKSAE(hidden_size=32, n_latents=64, k=5), latents=kind)  # type: ignore[arg-type]
        model.sae.reset(torch.Generator().manual_seed(1))
    nn.init.normal_(model.score.weight)
    return model.to(dtype)


def gradients(model: RewardModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    """Each within `tolerance` of the largest element of its own tensor, of 0.01 where that is nothing but rounding."""
    assert ours.keys() == theirs.keys() and "model.embed_tokens.weight" in ours
    for name, value in theirs.items():
        largest = float(value.abs().max())
        assert float((ours[name] - value).abs().max()) <= tolerance * max(largest, 1e-2), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_row_gives_the_rewards_and_gradients_of_conversations_alone(name: str, dtype: torch.dtype) -> None:
    model, made, weights = model_of("topk", FAMILIES[name], dtype), pairs(), torch.arange(1, 9).to(dtype)
    assert can_pack(model.model)
    rewards, _ = model.packed_rewards(pack(made, dtype=dtype, device=CPU))
    together = torch.cat([rewards[0::2], rewards[1::2]])
    ours = gradients(model, (together * weights).sum())
    alone = rewards_alone(model, [pair.chosen for pair in made] + [pair.rejected for pair in made])  # type: ignore[arg-type]
    theirs = gradients(model, (alone * weights).sum())
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert_same_gradients(ours, theirs, 1e-4)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("kind", ["topk", "pre_acts", "linear", "dense"])
def test_every_reward_model_has_the_losses_and_gradients_of_padded_rows(kind: str, layer: int) -> None:
    model, made = model_of(kind, FAMILIES["llama"], layer=layer), pairs(seed=3)
    config = RewardTrainingConfig(layer=layer)
    assert row_layout(model, config) == "packed"
    packed_losses = micro_batch_losses(model, pack(made, dtype=torch.float32, device=CPU), config)
    ours = gradients(model, packed_losses.preference)
    row_losses = micro_batch_losses(model, collate(made, pad_id=0, header=None, device=CPU), config)
    theirs = gradients(model, row_losses.preference)
    torch.testing.assert_close(packed_losses.preference, row_losses.preference, rtol=1e-5, atol=1e-6)
    assert int(packed_losses.right) == int(row_losses.right)
    assert_same_gradients(ours, theirs, 1e-4)
    assert ("model.norm.weight" in ours) == (kind == "dense")


@pytest.mark.parametrize("reaches", [True, False])
def test_reconstruction_at_the_scored_token_is_that_of_padded_rows(reaches: bool) -> None:
    model, made = model_of("topk", FAMILIES["llama"]), pairs(seed=3)
    config = RewardTrainingConfig(
        layer=2, reconstruction_weight=0.5, reconstruction_tokens="last", reconstruction_reaches_backbone=reaches, sae_trains=True
    )
    assert row_layout(model, config) == "packed"
    found = []
    for batch in (pack(made, dtype=torch.float32, device=CPU), collate(made, pad_id=0, header=None, device=CPU)):
        losses = micro_batch_losses(model, batch, config)
        found.append((losses, gradients(model, losses.preference + 0.5 * losses.reconstruction)))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction, rtol=1e-5, atol=1e-6)
    assert float(ours.reconstruction.detach()) > 0.1
    assert_same_gradients(our_gradients, their_gradients, 1e-4)


def test_prompts_that_differ_become_two_sequences_and_stay_exact() -> None:
    pair = EncodedPair([7, 8, 9, 10, 11], [12, 8, 9, 13], "cut on the left at different places")
    row = pack([pair], dtype=torch.float32, device=CPU)
    assert row.runs == (Run(1, 5, 0), Run(1, 4, 0)) and row.masks == (None, None)
    assert row.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    model = model_of("topk", FAMILIES["llama"])
    torch.testing.assert_close(model.packed_rewards(row)[0], rewards_alone(model, [pair.chosen, pair.rejected]))  # type: ignore[arg-type]


def test_an_empty_response_is_scored_at_its_end_of_turn() -> None:
    pair = EncodedPair([7, 8, 9, 4], [7, 8, 9, 20, 21, 4], "chosen says nothing")
    row = pack([pair], dtype=torch.float32, device=CPU)
    assert row.runs == (Run(1, 4, 0), Run(1, 3, 3)) and row.kept.tolist() == [3, 6]
    model = model_of("topk", FAMILIES["llama"])
    torch.testing.assert_close(model.packed_rewards(row)[0], rewards_alone(model, [pair.chosen, pair.rejected]))  # type: ignore[arg-type]


def test_a_packed_row_holds_no_padding_and_each_prefix_once() -> None:
    made = pairs()
    row = pack(made, dtype=torch.float32, device=CPU)
    assert len(row.input_ids) == sum(shared_length(pair) for pair in made) == sum(run.number * run.length for run in row.runs)
    assert row.input_ids[row.kept].tolist() == [side[-1] for pair in made for side in (pair.chosen, pair.rejected)]


def test_the_last_block_runs_its_query_output_and_mlp_for_scored_tokens_alone() -> None:
    model, made = model_of("topk", FAMILIES["llama"]), pairs()
    row = pack(made, dtype=torch.float32, device=CPU)
    rows: dict[str, int] = {}

    def record(name: str) -> Any:
        return lambda module, args, output: rows.update({name: output.shape[0]})

    for number, block in enumerate(model.model.layers):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp"):
            block.get_submodule(name).register_forward_hook(record(f"{number}.{name}"))
    model.packed_rewards(row)
    tokens = len(row.input_ids)
    assert {name for name, count in rows.items() if count == 8} == {"1.self_attn.q_proj", "1.self_attn.o_proj", "1.mlp"}
    assert {count for name, count in rows.items() if name.startswith("0.") or name.endswith("k_proj")} == {tokens}


def test_activation_checkpointing_runs_blocks_twice_and_changes_no_gradient() -> None:
    model, row = model_of("topk", FAMILIES["llama"], layer=3), pack(pairs(), dtype=torch.float32, device=CPU)
    model.train()
    calls: list[int] = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = gradients(model, model.packed_rewards(row)[0].sum())
    assert len(calls) == 1
    model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradients(model, model.packed_rewards(row)[0].sum())
    assert len(calls) == 3, "once forward, once recomputed"
    assert_same_gradients(again, plain, 1e-6)


def test_packed_batches_hold_each_pair_once_within_the_budget() -> None:
    made = [EncodedPair([1] * (3 + index % 7) + [2], [1] * (2 + index % 5) + [3], f"p{index}") for index in range(40)]
    parts = list(packed_batches(made, 64))
    assert sorted(one.id for part in parts for one in part) == sorted(one.id for one in made)
    assert all(sum(shared_length(one) for one in part) <= 64 for part in parts)
    assert [len(part) for part in packed_batches(made[:3], 1)] == [1, 1, 1], "a pair beyond the budget goes alone"


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (Gemma2Config(**SIZES, head_dim=8, sliding_window=4), "rows"),
        (MistralConfig(**SIZES, sliding_window=4), "rows"),
        (GemmaConfig(**SIZES, head_dim=8), "shared"),
        (LlamaConfig(**SIZES, attention_dropout=0.1), "shared"),
        (LlamaConfig(**SIZES), "packed"),
    ],
    ids=["gemma2", "mistral with windows", "gemma", "llama with dropout", "llama"],
)
def test_a_model_that_cannot_be_packed_takes_the_next_layout_with_the_same_rewards(config: PretrainedConfig, layout: str) -> None:
    model, made, training = model_of("topk", config), pairs(), RewardTrainingConfig(layer=2)
    model.eval()
    assert row_layout(model, training) == layout
    batches: dict[str, Any] = {
        "packed": pack(made, dtype=torch.float32, device=CPU),
        "shared": share(made, pad_id=0, dtype=torch.float32, device=CPU),
        "rows": collate(made, pad_id=0, header=None, device=CPU),
    }
    losses = micro_batch_losses(model, batches[layout], training)
    alone = rewards_alone(model, [pair.chosen for pair in made] + [pair.rejected for pair in made])  # type: ignore[arg-type]
    expected = -nn.functional.logsigmoid(alone[:4] - alone[4:]).sum()
    torch.testing.assert_close(losses.preference, expected, rtol=1e-4, atol=1e-5)


def test_reconstruction_over_assistant_tokens_needs_whole_conversations() -> None:
    model = model_of("topk", FAMILIES["llama"])
    assert row_layout(model, RewardTrainingConfig(layer=2, reconstruction_weight=1.0, sae_trains=True)) == "rows"


def test_a_split_into_micro_batches_leaves_the_gradient_of_the_whole() -> None:
    model, made, config = model_of("topk", FAMILIES["llama"]), pairs(), RewardTrainingConfig(layer=2)

    def whole(budget: int) -> dict[str, Tensor]:
        parts: list[Packed] = [pack(part, dtype=torch.float32, device=CPU) for part in packed_batches(made, budget)]
        return gradients(model, sum((micro_batch_losses(model, part, config).preference for part in parts), torch.zeros(())))

    assert len(list(packed_batches(made, 30))) > 1 and len(list(micro_batches(made, 4096))) == 1
    assert_same_gradients(whole(30), whole(4096), 1e-4)
