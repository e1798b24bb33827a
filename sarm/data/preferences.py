"""The one shape of all comparison data, and its JSONL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sarm.data import notebook
from sarm.data.columns import (
    CONTENT_KEYS,
    REPLY_COLUMNS,
    ROLE_KEYS,
    TEXT_COLUMNS,
    TurnProblem,
    beside,
    content_text,
    is_empty,
    read_turn,
    texts_in,
    unsaid,
)
from sarm.job import UsageProblem
from sarm.store.json_lines import LinesError, read_lines

if TYPE_CHECKING:
    import pandas

Row = TypeVar("Row", bound=BaseModel)


class DataError(UsageProblem, ValueError):
    """A row of a data file is wrong. The message names file, line, key and the next step."""


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str

    @model_validator(mode="before")
    @classmethod
    def _without_empty_leftovers(cls, value: object) -> object:
        # Other tools write every key they know, `name: null` and `tool_calls: []` among them; one that holds something stays refused.
        if not isinstance(value, Mapping):
            return value
        return {name: one for name, one in value.items() if name in cls.model_fields or not is_empty(one)}

    @field_validator("content", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return content_text(value)

    def to_frame(self) -> pandas.DataFrame:
        """One row."""
        return notebook.frame(_turns([self]))

    def _repr_html_(self) -> str:
        return notebook.table(self.role, {"content": [self.content]})


class Preference(BaseModel):
    """A prompt with better and worse completions.

    A training pair has one of each; a RewardBench 2 row one chosen and three rejected (Ties: several of both);
    an RM-Bench item three of each in the order concise, detailed plain, detailed Markdown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: tuple[Message, ...] = Field(min_length=1, description="Turns up to and including the last user turn.")
    chosen: tuple[str, ...] = Field(min_length=1, description="Assistant replies that are preferred.")
    rejected: tuple[str, ...] = Field(min_length=1, description="Assistant replies that are not.")
    subset: str = Field(default="", description="Benchmark subset or domain, as published.")
    source: str = Field(default="", description="Where a training pair comes from.")

    def to_frame(self) -> pandas.DataFrame:
        """A row for each reply: `side` (chosen or rejected) and `reply`."""
        return notebook.frame(self._replies())

    def _repr_html_(self) -> str:
        prompt = " / ".join(f"{turn.role}: {turn.content}" for turn in self.prompt)
        return notebook.table(f"item {self.id} {self.subset or self.source}", self._replies(), note=prompt)

    def _replies(self) -> dict[str, list[str]]:
        return {"side": [*_sides(self.chosen, self.rejected)], "reply": [*self.chosen, *self.rejected]}


class ScoredPreference(BaseModel):
    """Rewards of one item's completions, in the order of the item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    subset: str = ""
    source: str = ""
    chosen_rewards: tuple[float, ...]
    rejected_rewards: tuple[float, ...]
    truncated: int = Field(default=0, ge=0, description="Completions of this item that were cut to max_length.")

    def to_frame(self) -> pandas.DataFrame:
        """A row for each reply: `side` (chosen or rejected) and `reward`."""
        return notebook.frame(self._replies())

    def _repr_html_(self) -> str:
        return notebook.table(f"rewards of item {self.id} {self.subset or self.source}", self._replies())

    def _replies(self) -> dict[str, Sequence[object]]:
        sides = _sides(self.chosen_rewards, self.rejected_rewards)
        return {"side": sides, "reward": [*self.chosen_rewards, *self.rejected_rewards]}


class TextDocument(BaseModel):
    """One document of the corpus on which an SAE is trained."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    source: str = ""


class Conversation(BaseModel):
    """A whole conversation to be scored, ending with an assistant turn."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    messages: tuple[Message, ...] = Field(min_length=1)

    @field_validator("id", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else value

    @model_validator(mode="after")
    def _ends_with_assistant(self) -> Conversation:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's: a reward is given to a reply")
        return self

    def to_frame(self) -> pandas.DataFrame:
        """A row for each turn: `role` and `content`."""
        return notebook.frame(_turns(self.messages))

    def _repr_html_(self) -> str:
        return notebook.table(f"conversation {self.id}".strip(), _turns(self.messages))


def _turns(messages: Sequence[Message]) -> dict[str, list[str]]:
    return {"role": [one.role for one in messages], "content": [one.content for one in messages]}


def _sides(chosen: Sequence[object], rejected: Sequence[object]) -> list[str]:
    return ["chosen"] * len(chosen) + ["rejected"] * len(rejected)


def read_jsonl(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Rows of a JSONL file, in order. Raises DataError with file, line and key."""
    try:
        for number, value in read_lines(path):
            yield _row(path, number, value, row_type)
    except LinesError as error:
        raise DataError(str(error)) from error


def read_conversations(path: Path, unread: Counter[str] | None = None) -> list[tuple[int, Conversation]]:
    """Conversations with the numbers of their lines; `unread` counts the columns and keys of messages that hold something we do not read.

    Raises DataError as `read_jsonl`, for a file without any, and for a column or a message's key with text that no model would see, such as
    another reply.
    """
    found, told = [], Counter[str]() if unread is None else unread
    for number, value in read_lines(path):
        plain, keys = _plain(path, number, value)
        found.append((number, _row(path, number, plain, Conversation)))
        columns = beside(value, Conversation.model_fields)
        lost = unsaid(value, columns, texts_in(value["messages"]), TEXT_COLUMNS | REPLY_COLUMNS)
        if lost is not None:
            raise DataError(
                f"{path}:{number}: {lost}: holds text that is not in `messages`, so the model would not see it; put it there, or remove it"
            )
        told.update([*columns, *keys])
    if not found:
        raise DataError(f"{path}: holds no conversation; write one JSON object a line: {{'messages': [...]}}")
    return found


def _plain(path: Path, number: int, value: object) -> tuple[object, list[str]]:
    """A row with its messages as role and content alone, and what else they hold, as `messages.name`. What is no message stays as it is."""
    messages = value.get("messages") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(messages, list):
        return value, []
    plain: list[object] = []
    keys: dict[str, None] = {}
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            plain.append(message)
            continue
        try:
            turn = read_turn(message)
        except TurnProblem as problem:
            raise DataError(f"{path}:{number}: messages.{place}.{problem.key}: {problem}") from problem
        keys.update(dict.fromkeys(f"messages.{key}" for key in turn.unread))
        said = {"role": (turn.role, ROLE_KEYS), "content": (turn.content, CONTENT_KEYS)}
        plain.append({name: one for name, (one, names) in said.items() if any(key in message for key in names)})
    return {**value, "messages": plain}, list(keys)


def _row(path: Path, number: int, value: object, row_type: type[Row]) -> Row:
    try:
        return row_type.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "row"
        what = "is null" if first["input"] is None else first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}:{number}: {key}: {what}; mend the row or remove it") from error
