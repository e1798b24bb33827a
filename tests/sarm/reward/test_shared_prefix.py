from __future__ import annotations

import pytest
import torch
from pairs_of_ids import CPU, SIZES, pairs, rewards_alone
from transformers import Gemma2Config, LlamaConfig, Qwen2Config

from sarm.backbone.decoder import truncated_backbone
from sarm.data.pairs import EncodedPair
from sarm.reward.models import SARM
from sarm.reward.shared_prefix import can_share, common_prefix, share, shared_length
from sarm.sae.model import TopKSAE


def sarm(config: LlamaConfig | Qwen2Config) -> SARM:
    torch.manual_seed(0)
    model = SARM(truncated_backbone(config, 2), TopKSAE(hidden_size=32, n_latents=64, k=5))
    model.sae.reset(torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.score.weight)
    return model


@pytest.mark.parametrize("config", [LlamaConfig(**SIZES), Qwen2Config(**SIZES)], ids=["llama", "qwen2"])
def test_a_shared_row_gives_the_rewards_and_gradients_of_two_rows(config: LlamaConfig | Qwen2Config) -> None:
    model, made = sarm(config), pairs()
    together = model.pair_rewards(*share(made, pad_id=0, dtype=torch.float32, device=CPU))
    (together * torch.arange(1, 9)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = rewards_alone(model, [pair.chosen for pair in made] + [pair.rejected for pair in made])
    (alone * torch.arange(1, 9)).sum().backward()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert "model.embed_tokens.weight" in gradients
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_a_tail_never_sees_the_other_tail() -> None:
    model, made = sarm(LlamaConfig(**SIZES)), pairs()
    changed = []
    for pair in made:
        first = common_prefix(pair)
        changed.append(pair._replace(rejected=[*pair.rejected[:first], 63, *pair.rejected[first + 1 :]]))
    before = model.pair_rewards(*share(made, pad_id=0, dtype=torch.float32, device=CPU))
    after = model.pair_rewards(*share(changed, pad_id=0, dtype=torch.float32, device=CPU))
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4:], after[4:])


def test_the_prefix_is_found_by_ids_and_leaves_each_side_a_token() -> None:
    assert common_prefix(EncodedPair([1, 2, 3, 9], [1, 2, 4, 9], "a")) == 2
    assert common_prefix(EncodedPair([5, 9], [6, 9], "b")) == 0
    inside = EncodedPair([1, 2, 9], [1, 2, 9, 3, 9], "one begins the other")
    assert common_prefix(inside) == 2
    assert shared_length(inside) == 3 + 5 - 2


def test_a_model_with_windows_is_not_given_a_mask_of_ours() -> None:
    windows = Gemma2Config(**SIZES, head_dim=8, sliding_window=4)
    assert not can_share(truncated_backbone(windows, 2))
    assert can_share(truncated_backbone(LlamaConfig(**SIZES), 2))
