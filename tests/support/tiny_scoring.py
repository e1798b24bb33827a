"""A tiny SARM, a tiny RewardBench 2, and the scoring job on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny import HIDDEN, job_context, llama_config, read_rows

from sarm.backbone.decoder import truncated_backbone
from sarm.config.score import ScoringConfig
from sarm.data.preferences import Message, Preference
from sarm.jobs.score.benchmark import score_benchmark
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE


def tiny_sarm() -> SARM:
    torch.manual_seed(0)
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return SARM(truncated_backbone(llama_config(), 2), sae).eval()


def items() -> list[Preference]:
    """Eleven items of one chosen and three rejected, one with two chosen; lengths differ."""
    made = [
        Preference(
            id=str(100 - index),
            prompt=(Message(role="user", content="tell me about the dog " * (1 + index % 3)),),
            chosen=("a good dog" + " and a cat" * (index % 4) + ".",),
            rejected=("a bad dog.", "awful" + " and a mat" * (index % 5) + ".", "one two three."),
            subset="Safety" if index % 2 else "Focus",
        )
        for index in range(10)
    ]
    ties = Preference(id="ref:1", prompt=made[0].prompt, chosen=("red.", "blue."), rejected=("six.",), subset="Ties")
    return [*made, ties]


def score(folder: Path, inputs: dict[str, Path], **changes: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the job; returns its rows and its conditions."""
    context = job_context(folder, inputs=inputs, threads=1)
    score_benchmark(ScoringConfig(**{"benchmark": "rewardbench2", "batch_tokens": 128, **changes}), context)
    return read_rows(context.output / "rewards.jsonl"), json.loads((context.output / "conditions.json").read_text())


def flat(rows: list[dict[str, Any]]) -> list[float]:
    return [reward for row in rows for reward in (*row["chosen_rewards"], *row["rejected_rewards"])]
