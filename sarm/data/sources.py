"""One function per public data set shape: a raw row in, a `Preference` or `TextDocument` out.

Every function raises DataError with file, row number, key and the next step where a row cannot be what it should.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, NoReturn, TypeGuard

from pydantic import ValidationError

from sarm.data.columns import (
    CONTENT_KEYS,
    ROLE_KEYS,
    TurnProblem,
    beside,
    content_text,
    lone_text,
    read_turn,
    texts_in,
    unread_keys,
    unsaid,
)
from sarm.data.preferences import DataError, Message, Preference, TextDocument

RMBENCH_LABELS = ("chat", "code", "math", "safety-refuse", "safety-response")
RMBENCH_STYLES = 3
# The columns that each shape reads. What stands beside them is refused where it holds text that no model would see, else counted.
READ_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("source",),
    "pairs": ("prompt", "chosen", "rejected", "id", "domain", "subset", "source"),
    "rewardbench2": ("id", "prompt", "chosen", "rejected", "subset", "num_correct", "num_incorrect", "total_completions"),
    "rmbench": ("id", "prompt", "chosen", "rejected", "domain"),
}
# A pair's own columns of the system's text. They are read only where they say something.
SYSTEM_COLUMNS = ("system", "system_prompt")
# The columns that may hold messages.
MESSAGE_COLUMNS = ("prompt", "chosen", "rejected")
EVALUATION_SHARE = 5

Row = Mapping[str, Any]


class EmptyPrompt(DataError):
    """A row whose prompt holds no text."""


class NoReply(DataError):
    """A row whose chosen or rejected reply is null, as where a turn only calls a tool."""


class DivergingHistories(DataError):
    """A pair whose two conversations differ before the last reply, so that they are no answers to one prompt."""


class Place(NamedTuple):
    """Where a raw row stands: the file's name and the row's number, from 1; and its name within the folder that was given."""

    file: str
    row: int
    within: str = ""

    @property
    def name(self) -> str:
        """A name for a row without one: two files of one name in two folders give two names."""
        return f"{self.within or PurePath(self.file).stem}-{self.row}"


class UnrolledCompletion(NamedTuple):
    """One completion of an item with its prompt, ready for a chat template."""

    id: str
    subset: str
    messages: tuple[Message, ...]


def rewardbench2_preference(row: Row, place: Place) -> Preference:
    """A row of allenai/reward-bench-2: `id`, `prompt`, `chosen[]`, `rejected[]`, `subset` and the three counts. Source: its card."""
    identifier = _identifier(row, place)
    subset = _text(row, "subset", place)
    if subset == "Ties" and not re.fullmatch(r"[^:]+:\d+", identifier):
        _refuse(place, "id", f"{identifier!r} is not 'ref:N' or 'tied:N'; a Ties row needs one of these")
    chosen = _completions(row, "chosen", place)
    rejected = _completions(row, "rejected", place)
    counts = {"num_correct": len(chosen), "num_incorrect": len(rejected), "total_completions": len(chosen) + len(rejected)}
    for key, actual in counts.items():
        stated = row.get(key)
        if stated is not None and stated != actual:
            _refuse(place, key, f"says {stated!r} but the row holds {actual}; mend the count or the lists")
    return Preference(id=identifier, prompt=_prompt(row, place), chosen=chosen, rejected=rejected, subset=subset)


def rmbench_preference(row: Row, place: Place) -> Preference:
    """An item of RM-Bench: three `chosen`, three `rejected`; the domain is `domain`, or what the file's name begins with.

    Source: THU-KEG/RM-Bench, its README.
    """
    domain = row.get("domain") or rmbench_domain(place.file)
    if not isinstance(domain, str) or not domain.startswith(("chat", "code", "math", "safety")):
        next_step = f"add `domain` or name the file after it, one of {', '.join(RMBENCH_LABELS)}"
        _refuse(place, "domain", f"{domain!r} is no RM-Bench domain; {next_step}")
    sides = {key: _completions(row, key, place) for key in ("chosen", "rejected")}
    for key, side in sides.items():
        if len(side) != RMBENCH_STYLES:
            _refuse(place, key, f"has {len(side)} completions; RM-Bench has 3: concise, detailed plain, detailed Markdown")
    return Preference(
        id=_identifier(row, place), prompt=_prompt(row, place), chosen=sides["chosen"], rejected=sides["rejected"], subset=domain
    )


def rmbench_domain(file: str) -> str:
    """The domain that a file's name begins with, or empty text."""
    return next((label for label in RMBENCH_LABELS if PurePath(file).name.startswith(label)), "")


def preference_pair(row: Row, place: Place) -> Preference:
    """A training pair in any common form.

    `chosen` and `rejected` are replies as text, replies as messages, or whole conversations; `prompt` is text or messages,
    and may be absent beside whole conversations: then their common beginning is the prompt.
    Raises EmptyPrompt and DivergingHistories, which a caller may choose to leave out.
    """
    prompt = _prompt(row, place) if row.get("prompt") is not None else None
    sides = [_reply(row, key, place) for key in ("chosen", "rejected")]
    histories = [history for history, _ in sides if history]
    if histories:
        if len(histories) != len(sides) or histories[0] != histories[1]:
            raise DivergingHistories(
                _line(place, "rejected", "its conversation differs from that of `chosen` before the last reply; remove the row")
            )
        if prompt is not None and not _belongs(prompt, histories[0]):
            _refuse(place, "prompt", "is not part of the conversation in `chosen`; remove `prompt` or mend the row")
        prompt = histories[0]
    if prompt is None and "prompt" in row:
        raise EmptyPrompt(_line(place, "prompt", "is null; remove the row, or set `skip_prompts = true` to leave such rows out"))
    if prompt is None:
        _refuse(place, "prompt", "is missing, and `chosen` is a reply alone; add the prompt as text or messages")
    _refuse_empty(prompt, place)
    prompt = with_system(prompt, row, place)
    if prompt[-1].role == "assistant":
        _refuse(place, "prompt", "ends with an assistant turn; it must end with the turn that is answered")
    identifier = row.get("id")
    return Preference(
        id=place.name if identifier is None else str(identifier),
        prompt=prompt,
        chosen=(sides[0][1],),
        rejected=(sides[1][1],),
        subset=str(row.get("domain") or row.get("subset") or ""),
        source=str(row.get("source") or ""),
    )


def with_system(prompt: tuple[Message, ...], row: Row, place: Place) -> tuple[Message, ...]:
    """The prompt with the text of a column `system` or `system_prompt` before it: text, parts of text, or one message of the system.

    Refused where the prompt says another one, and where the column holds text in any other form.
    """
    given = [_system_text(row, name, place) for name in SYSTEM_COLUMNS if _says(row.get(name))]
    own = [message.content for message in prompt if message.role == "system"]
    if not given or own == given[:1]:
        return prompt
    if own or len(set(given)) > 1:
        _refuse(place, "system", "differs from the system turn of the prompt; keep one of them")
    return (Message(role="system", content=given[0]), *prompt)


def _says(value: Any) -> bool:
    return any(text.strip() for text in texts_in(value))


def _system_text(row: Row, name: str, place: Place) -> str:
    try:
        return lone_text(row[name])
    except TurnProblem as problem:
        _refuse(place, f"{name}.{problem.key}", str(problem))
    except ValueError as error:
        _refuse(place, name, f"{error}; give the system's text alone, or put it into `prompt` as a message of the system")


def unread_columns(row: Row, item: Preference | TextDocument, place: Place, *, shape: str, text_column: str) -> list[str]:
    """The columns of a row, and the keys of its messages, that hold something we do not read.

    Raises DataError for a column with text that no model would see; such a key of a message was refused when the message was read.
    """
    if not isinstance(item, Preference):
        return beside(row, (*READ_COLUMNS[shape], text_column))
    systems = [name for name in SYSTEM_COLUMNS if shape == "pairs" and (isinstance(row.get(name), str) or _says(row.get(name)))]
    columns = beside(row, (*READ_COLUMNS[shape], *systems))
    lost = unsaid(row, columns, [*(message.content for message in item.prompt), *item.chosen, *item.rejected])
    if lost is not None:
        _refuse(place, lost, "holds text that is not in the conversation, so no model would see it; put it into `prompt` as messages, "
                             "or remove the column")  # fmt: skip
    return [*columns, *unread_keys(row, (*MESSAGE_COLUMNS, *systems))]


def text_document(row: Row, place: Place, *, column: str) -> TextDocument:
    """A document of running text from one column; a null is a document without text."""
    text = "" if column in row and row[column] is None else _text(row, column, place)
    return TextDocument(text=text, source=str(row.get("source") or ""))


def is_evaluation(preference: Preference) -> bool:
    """Whether the rule `prompt-sha256-mod-5` holds a pair out.

    The first user turn without white space around it, hashed by SHA-256: the first 8 hexadecimal digits are divisible by 5.
    """
    first = next((message for message in preference.prompt if message.role == "user"), preference.prompt[0])
    digest = hashlib.sha256(first.content.strip().encode()).hexdigest()
    return int(digest[:8], 16) % EVALUATION_SHARE == 0


def unrolled(items: Iterable[Preference]) -> Iterator[UnrolledCompletion]:
    """Every completion with its prompt: item by item, chosen before rejected, each in its order."""
    for item in items:
        for completion in item.chosen + item.rejected:
            reply = Message(role="assistant", content=completion)
            yield UnrolledCompletion(id=item.id, subset=item.subset, messages=(*item.prompt, reply))


def _line(place: Place, key: str, problem: str) -> str:
    return f"{place.file}:{place.row}: {key}: {problem}"


def _refuse(place: Place, key: str, problem: str) -> NoReturn:
    raise DataError(_line(place, key, problem))


def _identifier(row: Row, place: Place) -> str:
    identifier = row.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)) or identifier == "":
        _refuse(place, "id", f"is {identifier!r}; give each row its published id")
    return str(identifier)


def _text(row: Row, key: str, place: Place) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        columns = ", ".join(sorted(str(name) for name in row)) or "none"
        what = ("is null" if key in row else "is missing") if value is None else "is not text"
        _refuse(place, key, f"{what}; the row has: {columns}")
    return value


def _completions(row: Row, key: str, place: Place) -> tuple[str, ...]:
    values = row.get(key)
    if not _is_list(values) or not all(isinstance(value, str) for value in values):
        _refuse(place, key, f"is {'missing' if values is None else 'not a list of texts'}; give a list of completions")
    if not values:
        _refuse(place, key, "is an empty list; a row needs at least one completion on each side")
    return tuple(values)


def _prompt(row: Row, place: Place) -> tuple[Message, ...]:
    """The prompt as messages; text becomes one user turn, unchanged. Raises EmptyPrompt."""
    value = row.get("prompt")
    turns: Sequence[Any] = value if _is_list(value) else [{"role": "user", "content": _text(row, "prompt", place)}]
    messages = _messages(turns, "prompt", place)
    _refuse_empty(messages, place)
    return messages


def _refuse_empty(prompt: Sequence[Message], place: Place) -> None:
    if not any(message.content.strip() for message in prompt):
        raise EmptyPrompt(_line(place, "prompt", "is empty; remove the row, or set `skip_prompts = true` to leave such rows out"))


def _messages(values: Sequence[Any], key: str, place: Place) -> tuple[Message, ...]:
    messages = []
    for position, value in enumerate(values):
        where = f"{key}.{position}"
        if not isinstance(value, Mapping):
            _refuse(place, where, "is not a message; give objects with `role` and `content`")
        try:
            turn = read_turn(value)
        except TurnProblem as problem:
            _refuse(place, f"{where}.{problem.key}", str(problem))
        if turn.content is None:
            _refuse(place, f"{where}.content", "is null; mend the message")
        try:
            messages.append(Message.model_validate({"role": turn.role, "content": turn.content}))
        except ValidationError as error:
            first = error.errors()[0]
            _refuse(place, f"{where}.{first['loc'][0]}", f"{first['msg'].removeprefix('Value error, ')}; mend the message")
    return tuple(messages)


def _reply(row: Row, key: str, place: Place) -> tuple[tuple[Message, ...], str]:
    """The turns before the last reply (none where the reply stands alone) and the reply."""
    value = row.get(key)
    if isinstance(value, str):
        return (), value
    if value is None and key in row:
        raise NoReply(_line(place, key, "is null; remove the row, or give the assistant's reply"))
    if not _is_list(value) or not value:
        _refuse(place, key, f"is {'missing' if value is None else 'neither text nor messages'}; give the assistant's reply")
    if all(isinstance(part, str) or (isinstance(part, Mapping) and "role" not in part and "from" not in part) for part in value):
        return (), _joined(value, key, place)
    if _is_null_reply(value[-1]):
        raise NoReply(_line(place, f"{key}.{len(value) - 1}.content", "is null; remove the row, or give the assistant's reply"))
    messages = _messages(value, key, place)
    if messages[-1].role != "assistant":
        _refuse(place, f"{key}.{len(messages) - 1}.role", f"is {messages[-1].role!r}; the last message must be the assistant's")
    return messages[:-1], messages[-1].content


def _is_null_reply(last: Any) -> bool:
    named = [last.get(name) for name in (*ROLE_KEYS, *CONTENT_KEYS)] if isinstance(last, Mapping) else []
    return bool(named) and named[2:] == [None, None] and any(name in ("assistant", "gpt", "model") for name in named[:2])


def _joined(parts: Sequence[Any], key: str, place: Place) -> str:
    """A reply that is one text, or a list of text parts."""
    if len(parts) > 1 and any(isinstance(part, str) for part in parts):
        _refuse(place, key, f"is a list of {len(parts)} texts; a training pair has one chosen and one rejected reply")
    try:
        return str(content_text(parts))
    except ValueError as error:
        _refuse(place, key, f"{error}; mend the reply")


def _belongs(prompt: Sequence[Message], history: Sequence[Message]) -> bool:
    """Whether a stated prompt is the conversation's history, or (as text) the content of one of its user turns."""
    if tuple(prompt) == tuple(history):
        return True
    contents = {message.content.strip() for message in history if message.role == "user"}
    return len(prompt) == 1 and prompt[0].content.strip() in contents


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
