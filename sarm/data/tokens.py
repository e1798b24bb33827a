"""Conversations and sentences as token ids: templates, one stated BOS policy, masks, positions, batches."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sarm.data.chat_templates import ChatTemplate, TemplateRefusal
from sarm.data.preferences import DataError, Message
from sarm.data.turn_ends import IN_PROFILE, PROBE, Advice, end_of_turn_in
from sarm.job import UsageProblem

BosPolicy = Literal["single", "double-first-masked", "double"]
Overlong = Literal["left", "right", "tokenizer", "drop", "error"]
RowPooling = Literal["end_of_turn", "last_token"]
RefusedTurns = Literal["error", "drop"]

# Of several templates that have names, the one that transformers takes where none is asked for.
DEFAULT_TEMPLATE = "default"
# The key of such counts among what a job says of itself.
TURNS_NOT_WRITTEN = "turns_not_written"
DATE_PATTERN = "%d %b %Y"
DATE_CALL = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<pattern>.*?)(?P=quote)\s*\)""")

# Inner punctuation after which the released SAE training also keeps a position; `.` is normally a sentence's last token.
# Source: schrieffer-z/sae, src/utils.py:459-475.
INNER_PUNCTUATION = (",", "?", "--", ";", "!", '"', " ,", " ?", " --", " ;", " !", ' "')

# Tokens at which contexts end. Source: apply.py:359-364.
SENTENCE_ENDERS = ("?", ".", ";", "!", " ?", " .", " ;", " !")


class TokenizerProblem(UsageProblem, ValueError):
    """The tokenizer cannot be used for conversations; the message says what to set."""


class EncodedText(NamedTuple):
    """Token ids of a plain text, and whether tokens were cut off at its end."""

    ids: list[int]
    truncated: bool


class EncodedConversation(NamedTuple):
    """Token ids of a conversation that ends with its end-of-turn token, and whether tokens were cut off."""

    ids: list[int]
    truncated: bool


NO_IDS = EncodedConversation([], truncated=False)


@dataclass(frozen=True)
class ConversationTokenizer:
    """Chat template, BOS policy and pooling token of one tokenizer.

    The end-of-turn token is the tokenizer's eos where the template closes a reply with it, else the special token with which it does
    (Gemma's eos is never written), or the one named `end_of_turn`. What a template writes after the last one (a newline in ChatML) is
    cut, so that the scored token is always the end of turn; with `last_token` nothing is cut and the row's last token is scored. Dates
    in templates are pinned by `date_string`, also where a template asks for today's. `advice` is for whoever opens the tokenizer.
    `unwritten` counts, by role, the turns that the template does not write as they are; those of a prompt with each of its replies.
    """

    tokenizer: Any
    date_string: str = "26 Jul 2024"
    bos: BosPolicy = "single"
    end_of_turn: str = ""
    pooling: RowPooling = "end_of_turn"
    advice: Advice = IN_PROFILE
    unwritten: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        template_of(self.tokenizer, cure=self.advice.chat_template)
        if self.end_of_turn and self.end_of_turn not in self.tokenizer.get_vocab():
            raise TokenizerProblem(f"{self.name}: the tokenizer has no token {self.end_of_turn!r} to end a turn; {self.advice.end_of_turn}")

    @property
    def name(self) -> str:
        """The folder's."""
        return Path(getattr(self.tokenizer, "name_or_path", "tokenizer")).name

    @property
    def pad_id(self) -> int:
        """Id that fills rows on the right. Rows are pooled by their length, so it may equal any other token."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return int(next(token for token in known if token is not None))

    def require_padding(self) -> None:
        """Raises TokenizerProblem where transformers, which looks for pads, would pool a model wrongly that has this tokenizer."""
        if self.tokenizer.pad_token_id is None:
            raise TokenizerProblem(f"{self.name}: the tokenizer has no pad token; {self.advice.pad_token}")
        if self.tokenizer.pad_token_id == self.end_of_turn_id:
            raise TokenizerProblem(
                f"{self.name}: pad equals the end-of-turn token {self.end_of_turn_text!r}, so pooling would be ambiguous; "
                f"{self.advice.pad_token.replace('set pad_token', 'set another pad_token')}"
            )

    @cached_property
    def end_of_turn_id(self) -> int:
        """Id of the token that ends a turn, which is the scored one. Raises TokenizerProblem where the template closes turns with none."""
        if self.end_of_turn:
            return int(self.tokenizer.convert_tokens_to_ids(self.end_of_turn))
        found = end_of_turn_in(self.tokenizer, self._closing)
        if found is None and self.tokenizer.eos_token_id is None:
            raise TokenizerProblem(f"{self.name}: no eos token, and the template closes turns with none; {self.advice.end_of_turn}")
        return int(self.tokenizer.eos_token_id) if found is None else found

    @property
    def end_of_turn_text(self) -> str:
        """The token that ends a turn."""
        return str(self.tokenizer.convert_ids_to_tokens(self.end_of_turn_id))

    @cached_property
    def _closing(self) -> str:
        """What the template writes after a reply; empty where it refuses the question."""
        try:
            return self.render([Message(role="user", content="x"), Message(role="assistant", content=PROBE)]).rpartition(PROBE)[2]
        except TemplateRefusal:
            return ""

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The template's text without its leading BOS. Raises TemplateRefusal, TemplateBeyondLimits or TokenizerProblem.

        Deviation: the released code deletes every literal BOS string, also inside the user's text; ours only the leading one.
        """
        (text,) = self._chat_template.written([as_turns(messages)], ["a conversation"], generation_prompt=generation_prompt)
        if isinstance(text, TemplateRefusal):
            raise text
        return self._without_bos(text)

    def _without_bos(self, text: str) -> str:
        return text.removeprefix(self.tokenizer.bos_token) if self.tokenizer.bos_token else text

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        return chat_template(self.tokenizer, self.date_string, cure=self.advice.chat_template)

    def _bos_ids(self) -> list[int]:
        return leading_bos(self.tokenizer) * (1 if self.bos == "single" else 2)

    def encode(
        self, messages: Sequence[Message], *, max_length: int, overlong: Overlong = "left", name: str = "conversation"
    ) -> EncodedConversation:
        """Ids of at most `max_length` tokens, ending with the end of turn.

        `left` cuts the beginning (BOS with it, as the released code does), `right` the end, which loses the end of turn and
        is refused; `error` refuses; `drop` returns no ids. Raises DataError.
        """
        return self.encode_many([messages], max_length=max_length, overlong=overlong, names=[name])[0]

    def encode_many(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_length: int,
        overlong: Overlong = "left",
        names: Sequence[str],
        refused_turns: RefusedTurns = "error",
    ) -> list[EncodedConversation]:
        """`encode` of many conversations at once; of one whose turns the template refuses no ids with `drop`."""
        if not conversations:
            return []
        texts = rendered(self._chat_template, conversations, names, refused_turns=refused_turns)
        self.unwritten.update(unwritten_turns(conversations, texts))
        rows = self.tokenizer([self._without_bos(text or "") for text in texts], add_special_tokens=False)["input_ids"]
        return [
            NO_IDS if text is None else self._finish(ids, max_length, overlong, name)
            for text, ids, name in zip(texts, rows, names, strict=True)
        ]

    def _finish(self, ids: list[int], max_length: int, overlong: Overlong, name: str) -> EncodedConversation:
        whole = self._bos_ids() + (ids if self.pooling == "last_token" else self._to_the_end_of_turn(ids, name))
        if not whole:
            raise DataError(f"{name}: the chat template writes nothing; mend the template")
        if len(whole) <= max_length:
            return EncodedConversation(whole, truncated=False)
        if overlong == "left":
            return EncodedConversation(whole[-max_length:], truncated=True)
        if overlong == "drop":
            return EncodedConversation([], truncated=True)
        raise DataError(
            f"{name}: {len(whole)} tokens exceed max_length = {max_length} and "
            + ("cutting the right end would lose the end-of-turn token" if overlong == "right" else "overlong = 'error'")
            + "; raise max_length or cut on the left"
        )

    def _to_the_end_of_turn(self, ids: list[int], name: str) -> list[int]:
        if self.end_of_turn_id not in ids:
            raise DataError(f"{name}: the template wrote no end-of-turn token {self.end_of_turn_text!r}; {self.advice.end_of_turn}")
        last = len(ids) - 1 - ids[::-1].index(self.end_of_turn_id)
        if last + 1 < len(ids) and self.tokenizer.decode(ids[last + 1 :]).strip():
            token, cure = self.end_of_turn_text, self.advice.end_of_turn
            raise DataError(f"{name}: the chat template does not close the last turn with {token!r}; mend the template, or {cure}")
        return ids[: last + 1]

    def assistant_header(self) -> list[int]:
        """Ids that open an assistant turn, from the template's generation prompt."""
        turn = [Message(role="user", content="x")]
        opened = self.render(turn, generation_prompt=True)
        plain = self.render(turn)
        if not opened.startswith(plain) or opened == plain:
            raise TokenizerProblem("the chat template has no generation prompt from which to read the assistant header")
        return list(self.tokenizer(opened[len(plain) :], add_special_tokens=False)["input_ids"])


def as_turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as templates read them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def rendered(
    template: ChatTemplate,
    conversations: Sequence[Sequence[Message]],
    names: Sequence[str],
    *,
    refused_turns: RefusedTurns = "error",
) -> list[str | None]:
    """The template's text of each conversation; None with `drop` where the template refuses its turns.

    Templates refuse by raising: no system turn, turns that do not alternate. Raises DataError with the row's name and the template's words,
    and TemplateBeyondLimits, with `drop`, too: a template that takes a process's whole time once would take it for each row.
    """
    found: list[str | None] = []
    texts = template.written([as_turns(messages) for messages in conversations], names)
    for text, name in zip(texts, names, strict=True):
        if isinstance(text, TemplateRefusal) and refused_turns == "error":
            raise DataError(f"{name}: the chat template refuses it: {text}; mend the turns, or leave such rows out") from text
        found.append(None if isinstance(text, TemplateRefusal) else text)
    return found


def unwritten_turns(conversations: Sequence[Sequence[Message]], texts: Sequence[str | None]) -> Iterator[str]:
    """The role of each turn whose content, but for space around it, does not stand in its conversation's text: templates leave out
    roles that they do not know, and change what they know (thoughts of earlier turns). Not of texts that are None."""
    for messages, text in zip(conversations, texts, strict=True):
        if text is not None:
            yield from (message.role for message in messages if message.content.strip() not in text)


def not_written(counts: Counter[str]) -> dict[str, dict[str, int]]:
    """What a job says of `unwritten`: nothing where there is none, so that what plain conversations give stays as it was."""
    return {TURNS_NOT_WRITTEN: dict(sorted(counts.items()))} if counts else {}


def leading_bos(tokenizer: Any) -> list[int]:
    """The id of the token that opens every text; empty for a tokenizer that has none."""
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def encode_texts(tokenizer: Any, texts: Sequence[str], *, max_length: int) -> list[EncodedText]:
    """One BOS and the text's own tokens, as SAE training reads text; a longer one is cut at its end.

    Raises DataError that names an empty text, which has no token to look at.
    """
    if not texts:
        return []
    empty = next((number for number, text in enumerate(texts, start=1) if not text.strip()), None)
    if empty is not None:
        raise DataError(f"text {empty} is empty; leave it out")
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    whole = [leading_bos(tokenizer) + row for row in rows]
    return [EncodedText(ids[:max_length], truncated=len(ids) > max_length) for ids in whole]


def chat_template(tokenizer: Any, date_string: str, *, cure: str = IN_PROFILE.chat_template) -> ChatTemplate:
    """The tokenizer's template with its date pinned, and the variables that transformers gives it. Raises TokenizerProblem."""
    variables = {**tokenizer.special_tokens_map, "date_string": date_string}
    name = Path(getattr(tokenizer, "name_or_path", "tokenizer")).name
    return ChatTemplate(name, dated_template(tokenizer, date_string, cure=cure), variables, cure)


def template_of(tokenizer: Any, *, cure: str = IN_PROFILE.chat_template) -> str:
    """The tokenizer's own template: of several that have names, the one called `default`.

    Raises TokenizerProblem where there is none, where none of several is the default, and where it is no text.
    """
    name = Path(getattr(tokenizer, "name_or_path", "tokenizer")).name
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise TokenizerProblem(f"{name}: no chat template; {cure}")
    if isinstance(template, dict):
        if DEFAULT_TEMPLATE not in template:
            names = ", ".join(repr(str(one)) for one in sorted(template, key=str))
            raise TokenizerProblem(
                f"{name}: chat_template holds templates of the names {names} and none named {DEFAULT_TEMPLATE!r}; "
                f"rename the one that is meant, or {cure}"
            )
        template = template[DEFAULT_TEMPLATE]
    if not isinstance(template, str):
        raise TokenizerProblem(f"{name}: chat_template = {str(template)[:60]} is no text; {cure}")
    return template


def dated_template(tokenizer: Any, date_string: str, *, cure: str = IN_PROFILE.chat_template) -> str:
    """The tokenizer's template with the pinned date in place of each call that asks for today's. Raises TokenizerProblem."""

    def pinned(call: re.Match[str]) -> str:
        try:
            date = datetime.strptime(date_string, DATE_PATTERN)
        except ValueError as error:
            raise TokenizerProblem(f"date_string = {date_string!r} is not a date like '26 Jul 2024'; correct it") from error
        return json.dumps(date.strftime(call["pattern"]))

    template = DATE_CALL.sub(pinned, template_of(tokenizer, cure=cure))
    if "strftime_now(" in template:
        raise TokenizerProblem(f"the chat template's call of strftime_now cannot be pinned; {cure} that does without")
    return template


def assistant_start(ids: Sequence[int], header: Sequence[int]) -> int | None:
    """Index after the last assistant header, or None where there is none."""
    width = len(header)
    for start in range(len(ids) - width, -1, -1):
        if list(ids[start : start + width]) == list(header):
            return start + width
    return None


def assistant_mask(ids: Sequence[int], header: Sequence[int], *, end_of_turn_id: int) -> list[int]:
    """1 from the first token after the last assistant header to the end, 0 before; a list as long as `ids`.

    Raises DataError where the conversation does not end with its end of turn, and where no header is left (cut off by
    truncation); there the released training code crashes and its context collector counts from the first token
    (docs/deviations.md). Source: src/sae.py:4-20.
    """
    if not ids or ids[-1] != end_of_turn_id:
        raise DataError(f"the conversation does not end with the end-of-turn token {end_of_turn_id}; was it cut on the right?")
    start = assistant_start(ids, header)
    if start is None:
        raise DataError("no assistant header is left in the conversation (cut off?); raise max_length or drop overlong rows")
    return [0] * start + [1] * (len(ids) - start)


def inner_punctuation_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the inner punctuation that the released SAE training keeps, where each is a single token."""
    return frozenset(ids[0] for ids in tokenizer(list(INNER_PUNCTUATION), add_special_tokens=False)["input_ids"] if len(ids) == 1)


def sentence_ender_ids(tokenizer: Any, end_of_turn: str) -> tuple[int, ...]:
    """First id of each sentence ender and of the end of turn, as the released context collector takes them."""
    return tuple(ids[0] for ids in tokenizer([*SENTENCE_ENDERS, end_of_turn], add_special_tokens=False)["input_ids"])


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of similar length whose padded size (rows x longest) is at most `budget`, longest first.

    A row longer than the budget is a batch of its own. Each index occurs exactly once.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def equal_length_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of exactly equal length with at most `budget` tokens: no padding at all. Shortest first."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    for length in sorted(by_length):
        rows = max(1, budget // length)
        indices = by_length[length]
        for start in range(0, len(indices), rows):
            yield indices[start : start + rows]
