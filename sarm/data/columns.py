"""What a row holds beside what we read: said by the conversation too, refused by name, or counted. Nothing is dropped without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Columns that other tools fill with text that a model is meant to see. Such text may only be left out where the conversation has it.
TEXT_COLUMNS = frozenset(
    {"system", "system_prompt", "system_message", "instruction", "input", "context", "history", "question", "query", "messages"}
    | {"conversation", "conversations", "tools", "functions", "image", "images", "video", "videos", "audio", "audios", "documents", "docs"}
)
# Columns that hold another reply, or what was asked, beside the `messages` that are scored.
REPLY_COLUMNS = frozenset(
    {"prompt", "chosen", "rejected", "reply", "response", "responses"}
    | {"completion", "completions", "output", "outputs", "answer", "answers"}
)
# The same inside a message: what it says beside `content`, and what templates of the tools that write it show to a model.
TEXT_KEYS = frozenset(
    {"tool_calls", "function_call", "tools", "functions", "reasoning_content", "reasoning", "thinking", "refusal", "system", "text"}
    | {"context", "documents", "docs", "files", "attachments", "tool_responses", "tool_results", "citations"}
    | {"image", "images", "video", "videos", "audio", "audios"}
)
# The same inside a part of a message's content.
PART_KEYS = TEXT_KEYS - {"text"} | {"image_url", "video_url", "audio_url", "input_image", "input_audio", "input_file", "file", "document"}
# Names of roles and kinds are no text.
WORDS_OF_FORM = frozenset({"role", "from", "type"})
# ShareGPT-style files say `from`/`value` and name the speakers otherwise.
SPEAKERS = {"human": "user", "gpt": "assistant", "model": "assistant"}
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")


class Turn(NamedTuple):
    """A message as other tools write it: its role and content, still to be checked, and its other keys that hold something."""

    role: Any
    content: Any
    unread: tuple[str, ...] = ()


class TurnProblem(ValueError):
    """A message says more than its role and content. `key` is where, the text is what and the next step."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def read_turn(message: Mapping[str, Any]) -> Turn:
    """The one rule for the keys of a message, in pairs, benchmarks and conversations alike.

    Raises TurnProblem where text would be lost: two roles or two contents that differ, and a key with text that the content does not have.
    """
    role, content = _speaker(_one_of(message, ROLE_KEYS, _speaker)), _one_of(message, CONTENT_KEYS, _text_or_self)
    others = beside(message, (*ROLE_KEYS, *CONTENT_KEYS))
    lost = unsaid(message, others, texts_in(content), TEXT_KEYS)
    if lost is not None:
        raise TurnProblem(lost, "holds text that the model would not see; put it into `content`, or remove it")
    parts = content if isinstance(content, Sequence) and not isinstance(content, (str, bytes)) else ()
    of_parts = (f"content.{name}" for part in parts if isinstance(part, Mapping) for name in beside(part, ("type", "text")))
    return Turn(role, content, tuple(dict.fromkeys((*others, *of_parts))))


def unread_keys(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """The keys inside the messages of columns that hold something and are not read, as `prompt.name`: each once, in the row's order."""
    found: dict[str, None] = {}
    for column in columns:
        value = row.get(column)
        messages = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
        for message in messages:
            if isinstance(message, Mapping):
                found.update(dict.fromkeys(f"{column}.{key}" for key in _keys_not_read(message)))
    return list(found)


def _keys_not_read(message: Mapping[str, Any]) -> Iterable[str]:
    # A part of a reply's or a system column's own content stands where a message may stand.
    said = any(name in message for name in (*ROLE_KEYS, *CONTENT_KEYS))
    return read_turn(message).unread if said else beside(message, ("type", "text"))


def lone_text(value: Any) -> str:
    """What a column of one text says: text, parts of text, or one message of the system, alone or in a list.

    Raises ValueError for anything else.
    """
    entries = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(entries, Sequence) or isinstance(entries, bytes) or not entries:
        raise ValueError("is no text")
    first = entries[0]
    if isinstance(first, Mapping) and any(name in first for name in (*ROLE_KEYS, *CONTENT_KEYS)):
        turn = read_turn(first)
        if len(entries) > 1 or turn.role not in (None, "system"):
            raise ValueError("holds more than one message of the system")
        return lone_text(turn.content)
    if len(entries) > 1 and any(isinstance(entry, str) for entry in entries):
        raise ValueError(f"is a list of {len(entries)} texts")
    return str(content_text(entries))


def _one_of(message: Mapping[str, Any], names: Sequence[str], meaning: Callable[[Any], Any]) -> Any:
    """The value under two names of one thing. Other tools leave one of them empty; two that differ raise TurnProblem."""
    given = [(name, message[name]) for name in names if message.get(name) is not None]
    filled = [(name, value) for name, value in given if not is_empty(value)]
    if len(filled) > 1 and meaning(filled[0][1]) != meaning(filled[1][1]):
        raise TurnProblem(filled[1][0], f"differs from `{filled[0][0]}` of the same message; keep one of them")
    return filled[0][1] if filled else given[0][1] if given else None


def _speaker(name: Any) -> Any:
    return SPEAKERS.get(name, name) if isinstance(name, str) else name


def _text_or_self(content: Any) -> Any:
    """Content that can be compared; what is wrong with it is said where it is read."""
    try:
        return content_text(content)
    except ValueError:
        return content


def content_text(value: Any) -> Any:
    """A message's content as text: a list of text parts is joined, anything else comes back as it is.

    Raises ValueError for a part that is no text, or not text alone, with its place and type. Source: the content parts of OpenAI's format.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return value
    texts = []
    for place, part in enumerate(value):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if not isinstance(text, str) or kind not in ("text", "input_text", "output_text"):
            raise ValueError(f"part {place} is of type {kind!r}; a text model reads parts of type 'text' alone")
        other = next((name for name in part if name in PART_KEYS and _holds(part[name])), None) if isinstance(part, Mapping) else None
        if other is not None:
            raise ValueError(f"part {place} holds {other!r} beside its text; a text model reads parts of type 'text' alone")
        texts.append(text)
    return "".join(texts)


def is_empty(value: Any) -> bool:
    """Whether a column says nothing: null, no text, no entries."""
    return value is None or value is False or (isinstance(value, (str, Sequence, Mapping)) and len(value) == 0)


def _holds(value: Any) -> bool:
    """Whether anything inside a value says something: Parquet writes every field that any row has, as null."""
    if isinstance(value, Mapping):
        return any(_holds(inner) for inner in value.values())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return any(_holds(inner) for inner in value)
    return not is_empty(value)


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value, names of roles and kinds left out; bytes, as of an image in a Parquet file, stand for a text too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield f"{len(value)} bytes" if value else ""
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
