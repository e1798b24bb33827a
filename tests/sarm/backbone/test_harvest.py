"""Harvested states are those of the whole model at the kept positions, whatever the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import CONFIGS, SMALL
from tiny import causal_lm
from transformers import Qwen3Config

from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.harvest import Harvest, packed_by_length
from sarm.backbone.packed_forward import can_pack
from sarm.data.sentences import TextSequence
from sarm.job import UsageProblem

CPU = torch.device("cpu")
KEPT = {"ends": "last", "several": "inner and last", "all": "every position"}


def sequences(kind: str) -> list[TextSequence]:
    """Sentences of unequal length, some of the same; the fourth is a single token."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for number, length in enumerate([5, 9, 5, 1, 12, 9, 3]):
        ids = torch.randint(6, 40, (length,), generator=draw).tolist()
        kept = {"ends": [length - 1], "several": sorted({0, length // 2, length - 1}), "all": list(range(length))}[kind]
        made.append(TextSequence(ids, kept, number))
    return made


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("budget", [1, 14, 4096])
def test_harvest_gives_the_whole_models_states_at_the_kept_positions(name: str, kind: str, budget: int) -> None:
    full, made = causal_lm(CONFIGS[name]).eval(), sequences(kind)
    cut = truncated_backbone(CONFIGS[name], 3).eval()
    cut.load_state_dict({key: value for key, value in full.model.state_dict().items() if key in cut.state_dict()})
    assert can_pack(cut) == (name != "gemma2")
    layers = [3, 1, 0]
    found = Harvest(cut, layers, batch_tokens=budget, device=CPU).states(made)
    assert sorted(found) == [0, 1, 3]
    with torch.no_grad():
        states = [full(input_ids=torch.tensor([one.ids]), output_hidden_states=True).hidden_states for one in made]
    for layer in layers:
        expected = torch.cat([state[layer][0, one.kept] for state, one in zip(states, made, strict=True)])
        torch.testing.assert_close(found[layer], expected, rtol=1e-5, atol=1e-5)


def test_the_deepest_block_runs_for_kept_positions_alone_and_later_blocks_not_at_all() -> None:
    backbone = truncated_backbone(Qwen3Config(**SMALL, head_dim=8), 3).eval()
    rows: dict[str, int] = {}

    def record(name: str) -> Any:
        return lambda module, args, output: rows.update({name: output.shape[0]})

    for number, block in enumerate(backbone.layers):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp"):
            block.get_submodule(name).register_forward_hook(record(f"{number}.{name}"))
    Harvest(backbone, [2], batch_tokens=4096, device=CPU).states(sequences("ends"))
    assert rows == {
        **{f"0.{name}": 44 for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp")},
        "1.self_attn.k_proj": 44,
        **{f"1.{name}": 7 for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp")},
    }


def test_embeddings_alone_run_no_block() -> None:
    backbone = truncated_backbone(Qwen3Config(**SMALL, head_dim=8), 2).eval()
    made = sequences("ends")
    found = Harvest(backbone, [0], batch_tokens=4096, device=CPU).states(made)
    assert torch.equal(found[0], backbone.embed_tokens(torch.tensor([one.ids[-1] for one in made])))


def test_a_layer_beyond_the_cut_is_refused() -> None:
    backbone = truncated_backbone(Qwen3Config(**SMALL, head_dim=8), 2).eval()
    with pytest.raises(ValueError, match="layer 3 does not exist: the model was cut to 2 blocks"):
        Harvest(backbone, [3], batch_tokens=64, device=CPU).states(sequences("ends"))


def test_a_sequence_beyond_the_models_context_is_refused_naming_its_document() -> None:
    backbone = truncated_backbone(Qwen3Config(**SMALL, head_dim=8), 2).eval()
    harvest = Harvest(backbone, [1], batch_tokens=64, device=CPU)
    assert len(harvest.states([TextSequence([7] * 64, [63], 0)])[1]) == 1
    with pytest.raises(UsageProblem, match=r"corpus\.jsonl:6: 65 tokens, but the model has 64 positions; lower max_tokens to 64"):
        harvest.states([TextSequence([7] * 3, [2], 0), TextSequence([7] * 65, [64], 5)])


def test_packs_hold_each_sequence_once_within_the_budget() -> None:
    lengths = [3 + index % 11 for index in range(50)]
    batches = packed_by_length(lengths, 40)
    assert sorted(index for batch in batches for index in batch) == list(range(50))
    assert all(sum(lengths[index] for index in batch) <= 40 for batch in batches)
    assert packed_by_length([50, 60], 40) == [[0], [1]], "one beyond the budget goes alone"
