"""What a row holds beside what we read: said by the conversation too, refused by name, or counted. Nothing is dropped without a word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# Columns that other tools fill with text that a model is meant to see. Such text may only be left out where the conversation has it.
TEXT_COLUMNS = frozenset(
    {"system", "system_prompt", "system_message", "instruction", "input", "context", "history", "question", "query", "messages"}
    | {"conversation", "conversations", "tools", "functions", "image", "images", "video", "videos", "audio", "audios", "documents", "docs"}
)
# The same inside a message: what it says beside `content`.
TEXT_KEYS = frozenset(
    {"tool_calls", "function_call", "tools", "image", "images", "audio", "reasoning_content", "reasoning", "thinking", "refusal"}
)
# Names of roles and kinds are no text.
WORDS_OF_FORM = frozenset({"role", "from", "type"})


def content_text(value: Any) -> Any:
    """A message's content as text: a list of text parts is joined, anything else comes back as it is.

    Raises ValueError for a part that is no text, with its place and type. Source: the content parts of OpenAI's chat format.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return value
    texts = []
    for place, part in enumerate(value):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if not isinstance(text, str) or kind not in ("text", "input_text", "output_text"):
            raise ValueError(f"part {place} is of type {kind!r}; a text model reads parts of type 'text' alone")
        texts.append(text)
    return "".join(texts)


def is_empty(value: Any) -> bool:
    """Whether a column says nothing: null, no text, no entries."""
    return value is None or value is False or (isinstance(value, (str, Sequence, Mapping)) and len(value) == 0)


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value, names of roles and kinds left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in WORDS_OF_FORM:
                yield from texts_in(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from texts_in(inner)


def beside(row: Mapping[str, Any], read: Iterable[str]) -> list[str]:
    """The columns of a row that hold something and are not read, in the row's order."""
    known = frozenset(read)
    return [str(name) for name, value in row.items() if name not in known and not is_empty(value)]


def unsaid(row: Mapping[str, Any], columns: Iterable[str], said: Iterable[str], names: frozenset[str] = TEXT_COLUMNS) -> str | None:
    """The first of the columns that is meant for a model and holds text which the texts in `said` do not hold; None for none."""
    have = [text.strip() for text in said]
    for name in columns:
        if name in names and any(text.strip() and not any(text.strip() in one for one in have) for text in texts_in(row[name])):
            return name
    return None
