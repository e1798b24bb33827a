"""A reward for each conversation of a user's file, with the latents that carry it.

Writes `rewards.jsonl`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.score import ConversationScoringConfig
from sarm.data.preferences import Conversation, DataError, read_jsonl
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, TokenizerProblem
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.job import EnvironmentProblem, JobContext, UsageProblem
from sarm.reward.losses import attribution
from sarm.reward.models import SARM
from sarm.scoring.inference import RowBatch, score_rows
from sarm.store.json_lines import write_lines


def score_conversations(config: ConversationScoringConfig, context: JobContext) -> None:
    """Locations: `model` (a folder), `conversations` (JSONL of {id?, messages}). Writes `rewards.jsonl`.

    Raises UsageProblem when attribution is asked of a model without an SAE, EnvironmentProblem for a missing file.
    """
    use_threads(context.resources)
    source, folder = context.locations["conversations"], context.locations["model"]
    if not source.exists():
        raise EnvironmentProblem(f"{source.name}: no such file; give a JSONL file of conversations")
    try:
        tokenizer = ConversationTokenizer(load_tokenizer(folder), date_string=config.date_string)
        conversations, encoded = _read(source, tokenizer, config.max_length)
    except (DataError, TokenizerProblem) as error:
        raise UsageProblem(str(error)) from error
    model = load_reward_model(folder, dtype=torch_dtype(config.dtype), device=device_of(context.resources))
    if config.attribution and not isinstance(model, SARM):
        raise UsageProblem(f"{folder.name}: attribution needs a SARM; this reward model has no latents")
    found: dict[int, dict[str, Any]] = {}

    def take(batch: RowBatch) -> None:
        for place, index in enumerate(batch.indices):
            found[index] = {"reward": float(batch.rewards[place])}
        if config.attribution:
            shares = attribution(batch.features, model.score.weight[0].detach(), config.attribution)
            for place, index in enumerate(batch.indices):
                found[index]["attribution"] = [
                    {"latent": int(latent), "activation": float(activation), "weight": float(weight), "contribution": float(part)}
                    for latent, activation, weight, part in zip(*(values[place] for values in shares), strict=True)
                    if float(activation) != 0
                ]
        context.progress(len(found), len(encoded), "conversations", "")

    score_rows(
        model, [row.ids for row in encoded], pad_id=tokenizer.pad_id, batch_tokens=config.batch_tokens, first_masked=False, take=take
    )
    rows = enumerate(zip(conversations, encoded, strict=True))
    facts = ({"id": row.id or str(at), **found[at], "tokens": len(ids.ids), "truncated": ids.truncated} for at, (row, ids) in rows)
    write_lines(context.output / "rewards.jsonl", facts)


def _read(source: Path, tokenizer: ConversationTokenizer, max_length: int) -> tuple[list[Conversation], list[EncodedConversation]]:
    conversations = list(read_jsonl(source, Conversation))
    names = [f"{source.name}:{number}" for number in range(1, len(conversations) + 1)]
    return conversations, tokenizer.encode_many([row.messages for row in conversations], max_length=max_length, names=names)
