"""A reward for each completion of a benchmark or of a file of pairs; metrics are computed when a table is rendered."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from sarm.checkpoints import load_reward_model, load_tokenizer
from sarm.completions import encode_completions
from sarm.config import ScoringConfig
from sarm.data.preferences import DataError, Preference, ScoredPreference, read_jsonl, write_jsonl
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, TokenizerProblem
from sarm.engine import device_of, torch_dtype, use_threads
from sarm.inference import RowBatch, score_rows
from sarm.job import JobContext, UsageProblem
from sarm.model import RewardModel


def score_benchmark(config: ScoringConfig, context: JobContext) -> None:
    """Inputs: `model`, `benchmark`. Writes `rewards.jsonl` in the benchmark's order and `conditions.json`.

    Raises UsageProblem for a conversation that loses its end of turn and for a reward that is not finite.
    """
    use_threads(context.resources)
    model_folder = context.inputs["model"]
    try:
        items = list(read_jsonl(context.inputs["benchmark"] / f"{config.benchmark}.jsonl", Preference))
        items = items[: config.limit] if config.limit else items
        tokenizer = ConversationTokenizer(load_tokenizer(model_folder), date_string=config.date_string, bos=config.bos)
        rows = encode_completions(items, tokenizer, max_length=config.max_length, overlong=config.truncation, name=config.benchmark)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    model = load_reward_model(model_folder, dtype=torch_dtype(config.dtype), attention=config.attention).to(device_of(context.resources))
    rewards, padding = all_rewards(model, rows, tokenizer.pad_id, config, context)
    scored = regroup(items, rows, rewards)
    write_jsonl(context.output / "rewards.jsonl", scored)
    _write_conditions(context.output, config, scored, rows, padding)


def all_rewards(
    model: RewardModel, rows: list[EncodedConversation], pad_id: int, config: ScoringConfig, context: JobContext
) -> tuple[list[float], float]:
    """Rewards in the order of `rows`, and the share of padded positions."""
    rewards = [math.nan] * len(rows)
    done = 0

    def take(batch: RowBatch) -> None:
        nonlocal done
        for index, reward in zip(batch.indices, batch.rewards.tolist(), strict=True):
            rewards[index] = reward
        done += len(batch.indices)
        context.progress(done, len(rows), "completions", "")

    padding = score_rows(
        model,
        [row.ids for row in rows],
        pad_id=pad_id,
        batch_tokens=config.batch_tokens,
        first_masked=config.bos == "double-first-masked",
        take=take,
    )
    return rewards, padding


def regroup(items: list[Preference], rows: list[EncodedConversation], rewards: list[float]) -> list[ScoredPreference]:
    """Rewards back in the shape of the items. Raises UsageProblem that names an item whose reward is not finite."""
    scored, start = [], 0
    for item in items:
        count = len(item.chosen) + len(item.rejected)
        part = rewards[start : start + count]
        if not all(math.isfinite(reward) for reward in part):
            place = f"item {item.id!r} of subset {item.subset!r}"
            raise UsageProblem(f"{place}: the reward is not finite; score in another dtype or look at the weights")
        scored.append(
            ScoredPreference(
                id=item.id,
                subset=item.subset,
                source=item.source,
                chosen_rewards=tuple(part[: len(item.chosen)]),
                rejected_rewards=tuple(part[len(item.chosen) :]),
                truncated=sum(row.truncated for row in rows[start : start + count]),
            )
        )
        start += count
    return scored


def _write_conditions(
    output: Path, config: ScoringConfig, scored: list[ScoredPreference], rows: list[EncodedConversation], padding: float
) -> None:
    facts = {
        **config.model_dump(mode="json"),
        "items": len(scored),
        "completions": len(rows),
        "tokens": sum(len(row.ids) for row in rows),
        "truncated_completions": sum(row.truncated for row in rows),
        "padding_share": round(padding, 6),
        "torch_threads": torch.get_num_threads(),
    }
    (output / "conditions.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
