"""Conversations as the official RewardBench script gives them to a model: templated as text, tokenized afterwards.

Source: allenai/reward-bench at 05a9005, scripts/run_v2.py and rewardbench/models/pipeline.py; specification notes benchmarks.md section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sarm.data.chat_templates import ChatTemplate
from sarm.data.preferences import DataError, Message
from sarm.data.tokens import BosPolicy, EncodedConversation, Overlong, chat_template, rendered, template_of, unwritten_turns


@dataclass(frozen=True)
class HarnessTokenizer:
    """Token rows whose scored token is the last one of the templated text: a newline, where the template writes one after the turn.

    The template's BOS stays in the text and the tokenizer adds its own, so that Llama 3 rows begin with two; `single` drops the first
    of two, as the harness's class for LDL does. A row cut on the right has lost its end of turn and is scored where it ends.
    Deviation: today's date in a template is pinned; the harness's scores of such models depend on the day of the run.
    """

    tokenizer: Any
    date_string: str = "26 Jul 2024"
    bos: BosPolicy = "double-first-masked"
    unwritten: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        template_of(self.tokenizer, cure="set tokenizer.chat_template of this model in the profile")

    @property
    def pad_id(self) -> int:
        """Id that fills rows on the right. Rows are pooled by their length, so it may equal any other token."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in known if token is not None))

    @cached_property
    def _template(self) -> ChatTemplate:
        return chat_template(self.tokenizer, self.date_string)

    def encode_many(
        self, conversations: Sequence[Sequence[Message]], *, max_length: int, overlong: Overlong, names: Sequence[str]
    ) -> list[EncodedConversation]:
        """Ids of at most `max_length` tokens, cut on the side that `overlong` says. Raises DataError for `error` and for no tokens."""
        if not conversations:
            return []
        texts = [text or "" for text in rendered(self._template, conversations, names)]
        self.unwritten.update(unwritten_turns(conversations, texts))
        rows = self.tokenizer(texts, add_special_tokens=True)["input_ids"]
        return [self._finish(ids, max_length, overlong, name) for ids, name in zip(rows, names, strict=True)]

    def _finish(self, ids: list[int], max_length: int, overlong: Overlong, name: str) -> EncodedConversation:
        if not ids:
            raise DataError(f"{name}: the chat template writes nothing; mend the template")
        doubled = self.tokenizer.bos_token_id is not None and ids[:2] == [self.tokenizer.bos_token_id] * 2
        side = self.tokenizer.truncation_side if overlong == "tokenizer" else overlong
        if len(ids) > max_length and side not in ("left", "right"):
            raise DataError(f"{name}: {len(ids)} tokens exceed max_length = {max_length}; raise max_length or cut on a side")
        kept = ids[-max_length:] if side == "left" else ids[:max_length]
        drops = doubled and self.bos == "single" and kept[:2] == ids[:2]
        return EncodedConversation(kept[1:] if drops else kept, truncated=len(ids) > max_length)
