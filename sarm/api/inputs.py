"""What users hand in, checked at the door: conversations, texts, devices, precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from sarm.data.preferences import Conversation, Message
from sarm.engine.devices import named_device
from sarm.job import EnvironmentProblem, UsageProblem

Turns = Sequence[Message | Mapping[str, str]]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def checked_conversations(conversations: Sequence[Conversation | Turns]) -> list[Conversation]:
    """Conversations, each given as one or as its turns, `{"role": ..., "content": ...}`; the last turn is the assistant's.

    Raises UsageProblem that names the first wrong one by its place, from 1.
    """
    single = isinstance(conversations, str | Mapping | Conversation)
    given = [] if single else list(conversations)
    if single or any(isinstance(one, str | Mapping | Message) for one in given):
        raise UsageProblem("conversations: a list of conversations is expected, each a list of turns; put a single one into a list")
    found = []
    for number, one in enumerate(given, start=1):
        if isinstance(one, Conversation):
            found.append(one)
            continue
        try:
            found.append(Conversation.model_validate({"messages": list(one) if isinstance(one, Sequence) else one}))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise UsageProblem(f"conversation {number}: {key or 'turns'}: {first['msg']}; mend it or leave it out") from error
    return found


def checked_texts(texts: Sequence[str]) -> list[str]:
    """Texts as a list. Raises UsageProblem for a single one, and for what is no text."""
    given = [] if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not all(isinstance(one, str) for one in given):
        raise UsageProblem("texts: a list of strings is expected; put a single one into a list")
    return given


def checked_folder(folder: str | Path) -> Path:
    """A folder that is there. Raises EnvironmentProblem."""
    path = Path(folder)
    if not path.is_dir():
        raise EnvironmentProblem(f"{path.name}: no such folder; give the folder of a model")
    return path


def checked_place(device: torch.device | str, dtype: torch.dtype) -> tuple[torch.device, torch.dtype]:
    """A device that is here and a precision that models compute in. Raises UsageProblem or EnvironmentProblem."""
    if dtype not in DTYPES:
        raise UsageProblem(f"dtype = {dtype!r} is no precision to load in; give one of {', '.join(map(str, DTYPES))}")
    return named_device(device), dtype
