"""A reward for each conversation of a user's file, with the latents that carry it.

Writes `rewards.jsonl`, `conditions.json` (the token that is scored, the columns that were not read).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.score import ConversationScoringConfig
from sarm.data.preferences import Conversation, read_conversations
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, not_written
from sarm.data.turn_ends import ON_COMMAND_LINE
from sarm.engine.devices import device_of, torch_dtype, use_threads
from sarm.job import EnvironmentProblem, JobContext
from sarm.scoring.conversations import NamedRows, conversation_rewards, explained_rewards, head_latents
from sarm.scoring.edited_head import edited_head
from sarm.scoring.progress import ScoredTokens
from sarm.store.json_lines import write_lines
from sarm.store.whole_files import write_whole


def score_conversations(config: ConversationScoringConfig, context: JobContext) -> None:
    """Locations: `model` (a folder), `conversations` (JSONL of {id?, messages}). Writes `rewards.jsonl` and `conditions.json`.

    Raises UsageProblem when attribution or an edit is asked of a model whose reward is not linear in latents, for a wrong row and for a
    reward that is not finite; IntegrityProblem for an edit of another model; EnvironmentProblem for a missing file.
    """
    use_threads(context.resources)
    source, folder = context.locations["conversations"], context.locations["model"]
    if not source.exists():
        raise EnvironmentProblem(f"{source.name}: no such file; give a JSONL file of conversations")
    asked: dict[str, Any] = {"end_of_turn": config.end_of_turn, "pooling": config.pooling}
    tokenizer = ConversationTokenizer(load_tokenizer(folder), date_string=config.date_string, advice=ON_COMMAND_LINE, **asked)
    unread = Counter[str]()
    conversations, encoded, names = _read(source, tokenizer, config.max_length, unread)
    model = load_reward_model(folder, dtype=torch_dtype(config.dtype), device=device_of(context.resources))

    rows = NamedRows([row.ids for row in encoded], names, tokenizer.pad_id, limit="--max-length")
    told = ScoredTokens(rows.ids, context.progress, called="conversations").add
    found: list[dict[str, Any]]
    with edited_head(model, config.steering, name=folder.name):
        if config.attribution:
            latents = head_latents(model, name=folder.name)
            explained = explained_rewards(model, rows, latents=latents, top=config.attribution, batch_tokens=config.batch_tokens, told=told)
            found = [{"reward": one.reward, "attribution": [latent._asdict() for latent in one.latents]} for one in explained]
        else:
            found = [{"reward": reward} for reward in conversation_rewards(model, rows, batch_tokens=config.batch_tokens, told=told)]
    scored = enumerate(zip(conversations, encoded, found, strict=True))
    facts = ({"id": one.id or str(at), **reward, "tokens": len(row.ids), "truncated": row.truncated} for at, (one, row, reward) in scored)
    write_lines(context.output / "rewards.jsonl", facts)
    eos = tokenizer.tokenizer.eos_token
    # No template has to close a turn where its last token is asked for.
    ends = "" if config.pooling == "last_token" else tokenizer.end_of_turn_text
    conditions: dict[str, Any] = {"pooling": config.pooling, "end_of_turn": ends, "eos_token": eos or ""}
    # Only where there are any: what a plain file gives stays as it was.
    conditions |= {"columns_not_read": dict(sorted(unread.items()))} if unread else {}
    conditions |= not_written(tokenizer.unwritten)
    write_whole(context.output / "conditions.json", json.dumps(conditions, indent=1) + "\n")


def _read(
    source: Path, tokenizer: ConversationTokenizer, max_length: int, unread: Counter[str]
) -> tuple[list[Conversation], list[EncodedConversation], list[str]]:
    numbered = read_conversations(source, unread)
    conversations, names = [one for _, one in numbered], [f"{source.name}:{number}" for number, _ in numbered]
    return conversations, tokenizer.encode_many([row.messages for row in conversations], max_length=max_length, names=names), names
