"""Our reward training as a worker of `reward_step.py` and `ablation.py`: `python reward_ways.py LAYOUT FOLDER THREADS`.

LAYOUT is `ours` (what the job takes), or one of the exact layouts: `rows`, `shared`, `packed`. Savings can be taken away: with `+apart` no
prompt is shared, with `+all` the last block runs for all tokens, with `+everywhere` the SAE encodes all positions of rows, and with
`+unsorted` rows are padded in the order of the data.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig
from worker import Requests

from sarm.backbone.decoder import truncated_backbone
from sarm.backbone.packed_forward import packed_states
from sarm.backbone.packed_tokens import Packed
from sarm.config.train import RewardTrainingConfig
from sarm.data.pairs import EncodedPair
from sarm.data.tokens import ConversationTokenizer
from sarm.job import JobContext, Resources
from sarm.jobs.train.reward import RewardTraining
from sarm.reward import shared_prefix
from sarm.reward.models import SARM, DenseRewardModel, PooledOutput, RewardModel
from sarm.reward.pair_batches import PairRows
from sarm.sae.model import TopKSAE


class PadOnly(NamedTuple):
    """All that training asks of a tokenizer once pairs are ids."""

    pad_id: int


def settings_of(facts: dict[str, Any]) -> RewardTrainingConfig:
    """The training that every way does: AdamW without decay at one learning rate, gradients clipped at norm 1."""
    return RewardTrainingConfig(
        layer=facts["layer"],
        encoder="random_sae" if facts["latents"] else "none",
        n_latents=facts["latents"],
        k=facts["k"],
        batch_pairs=facts["batch_pairs"],
        epochs=1,
        learning_rate=facts["learning_rate"],
        weight_decay=0.0,
        schedule="constant",
        warmup_fraction=0.0,
        max_length=facts["max_length"],
        seed=facts["seed"],
    )


def load_model(folder: Path, facts: dict[str, Any]) -> RewardModel:
    """The saved sequence classifier as our scalar model, or its blocks under a random SAE."""
    config, weights = AutoConfig.from_pretrained(folder / "model"), load_file(folder / "model" / "model.safetensors")
    backbone = truncated_backbone(config, facts["layer"], keep_final_norm=not facts["latents"])
    if facts["latents"]:
        sae = TopKSAE(hidden_size=config.hidden_size, n_latents=facts["latents"], k=facts["k"])
        sae.reset(torch.Generator().manual_seed(facts["seed"]))
        backbone.load_state_dict({name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")})
        model: RewardModel = SARM(backbone, sae)
        torch.nn.init.normal_(model.score.weight, std=0.02, generator=torch.Generator().manual_seed(facts["seed"]))
        return model
    model = DenseRewardModel(backbone, hidden_size=config.hidden_size)
    model.load_state_dict(weights)
    return model


def score_everywhere(model: RewardModel) -> None:
    """Let features and rewards be computed at every position, of which one is taken, as the released code does."""

    def forward(input_ids: Tensor, last_index: Tensor, attention_mask: Tensor | None = None) -> PooledOutput:
        states = model.backbone_states(input_ids, attention_mask)
        features = model.features(states)
        rows = torch.arange(len(states))
        return PooledOutput(model.reward_of(features)[rows, last_index], states, features[rows, last_index])

    model.forward = forward  # type: ignore[method-assign]


def run_last_block_for_all(model: RewardModel) -> None:
    """Let the last block run for every token of a packed row, of which the scored ones are taken afterwards."""

    def packed_rewards(row: Packed) -> tuple[Tensor, Tensor]:
        every = row._replace(kept=torch.arange(len(row.input_ids)), ends_only=False)
        states = packed_states(model.model, every, [model.layer])[model.layer]
        pooled = model.model.get_submodule("norm")(states[row.kept])
        return model.reward_of(model.features(pooled)), pooled

    model.packed_rewards = packed_rewards  # type: ignore[method-assign]


def share_nothing(_: RewardModel) -> None:
    """Let every conversation have its own prompt."""
    shared_prefix.common_prefix = lambda pair: 0


def batch_in_order(pairs_at_once: int) -> None:
    """Let micro-batches be so many pairs in the order of the data, whatever their lengths."""

    def split(self: PairRows, pairs: Sequence[EncodedPair]) -> list[list[EncodedPair]]:
        return [list(pairs[start : start + pairs_at_once]) for start in range(0, len(pairs), pairs_at_once)]

    setattr(PairRows, "split", split)  # noqa: B010


def training_of(folder: Path, way: str, scratch: Path, threads: int) -> RewardTraining:
    """The job's own training loop, ready to step."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    pairs = [EncodedPair(chosen, rejected, str(number)) for number, (chosen, rejected) in enumerate(facts["pairs"])]
    context = JobContext(
        inputs={},
        output=scratch,
        checkpoint=scratch,
        resources=Resources(threads=threads, micro_batch_tokens=facts["budget"]),
        locations={},
        progress=lambda *_: None,
        stop_requested=lambda: False,
        log=lambda _: None,
    )
    tokenizer = cast(ConversationTokenizer, PadOnly(facts["pad_id"]))
    training = RewardTraining(settings_of(facts), context, load_model(folder, facts), tokenizer, pairs, [])
    layout, *extras = way.split("+")
    if layout != "ours":
        training.rows = replace(training.rows, layout=layout)  # type: ignore[arg-type]
    undo = {
        "apart": share_nothing,
        "all": run_last_block_for_all,
        "everywhere": score_everywhere,
        "unsorted": lambda model: batch_in_order(facts["rows_at_once"]),
    }
    for extra in extras:
        undo[extra](training.model)
    training.model.train()
    return training


def main() -> None:
    """Answer requests until there are no more."""
    way, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    requests = Requests()
    with tempfile.TemporaryDirectory() as scratch:
        training, done = training_of(folder, way, Path(scratch), threads), 0
        while steps := requests.next():
            requests.answer([training.step(done + index)["preference_loss"] for index in range(steps)])
            done += steps


if __name__ == "__main__":
    main()
