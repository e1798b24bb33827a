"""JSON objects beside weights: a model's `config.json`, an SAE's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from pydantic import BaseModel, ValidationError

from sarm.checkpoints.quantized import refuse_quantized_settings
from sarm.job import UsageProblem
from sarm.store.json_files import place_of, read_object, understood

# What peft and transformers put beside a model whose weights it changes.
ADAPTER = "adapter_config.json"
# transformers writes a name for each label that a config counts, before it looks at any weight.
MOST_LABELS = 1_000_000
Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UsageProblem for a file that is none."""
    return read_object(path)


def read_model_settings(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model, which is there.

    Raises UsageProblem for weights that are quantised, or adapted by others, and for labels without an end.
    """
    raw = read_settings(folder / "config.json")
    refuse_quantized_settings(raw, place_of(folder / "config.json"))
    refuse_endless_labels(raw, place_of(folder / "config.json"))
    if (folder / ADAPTER).exists():
        raise UsageProblem(
            f"{folder.name}/{ADAPTER}: an adapter lies beside the weights, and they alone would be read; merge it into them "
            "(merge_and_unload of peft) or move it away"
        )
    return raw


def refuse_endless_labels(raw: Mapping[str, Any], where: str) -> None:
    """Raises UsageProblem where a config, or one inside it, counts more labels than any model has: their names would fill the memory."""
    for inside in (raw, *(value for value in raw.values() if isinstance(value, Mapping))):
        labels = inside.get("num_labels")
        if isinstance(labels, int) and labels > MOST_LABELS:
            raise UsageProblem(f"{where}: num_labels has {len(str(labels))} digits, more than any model has; mend it or fetch it again")


@contextmanager
def settings_understood(what: str, raw: Mapping[str, Any]) -> Iterator[None]:
    """While a model is made from its `config.json`, which holds `raw`: what is absent, of another type or not known to transformers is
    refused in one line that names file and reason.
    """
    cure, also = "mend it or fetch it again", (StrictDataclassError, RuntimeError, AssertionError)
    with understood(f"{what}/config.json", cure=cure, also=also, values=raw):
        yield


def checked_settings(path: Path, kind: type[Settings]) -> Settings:
    """A JSON object of known keys. Raises UsageProblem that names a key that is absent or wrong."""
    try:
        return kind.model_validate(read_settings(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "object"
        raise UsageProblem(f"{place_of(path)}: {key}: {first['msg']}; make or fetch it again") from error
