"""Sizes of a backbone out of its `config.json`: a profile need not repeat them, and what it repeats must be what stands there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from replication.settings.profiles import Backbone, FolderBackbone, HubBackbone, Profile, Shape
from replication.usage_problems import UsageProblems
from sarm.job import UsageProblem
from sarm.store.json_files import read_object

# Where the files of a hub model lie once they are fetched; None before.
Fetched = Callable[[Backbone], Path | None]
CONFIG = "config.json"
NEEDED = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


def nothing_fetched(backbone: Backbone) -> Path | None:
    """For who has no store."""
    return None


def shape_in(file: Path) -> Shape:
    """The sizes that a `config.json` states, of the decoder where it describes several models.

    Raises UsageProblems that name file and key; EnvironmentProblem for a file that cannot be opened.
    """
    stated = _stated(file)
    found = {name: stated.get(name) for name in NEEDED}
    found["num_key_value_heads"] = stated.get("num_key_value_heads") or stated.get("num_attention_heads")
    found["head_dim"] = stated.get("head_dim") or 0
    wrong = [name for name, value in found.items() if isinstance(value, bool) or not isinstance(value, int)]
    if wrong:
        raise UsageProblems(
            [f"{file}: {name} is {stated.get(name)!r} and no whole number; give a Llama-like decoder, or mend the file" for name in wrong]
        )
    try:
        return Shape.model_validate(found)
    except ValidationError as error:
        raise UsageProblems([f"{file}: {one['loc'][0]} = {one['input']}: {one['msg']}; mend the file" for one in error.errors()]) from error


def contradictions(stated: Shape, file: Path, *, grown: bool = False) -> list[str]:
    """Where stated sizes are not those of a `config.json`, one line each. `grown`: its tokenizer got new tokens, and rows for them."""
    there = _stated(file)
    names = [name for name in Shape.model_fields if there.get(name) not in (None, 0) and not (grown and name == "vocab_size")]
    own = {**stated.model_dump(), "head_dim": stated.head_dim or stated.hidden_size // stated.num_attention_heads}
    return [f"{name} = {own[name]}, but {file} says {there[name]}" for name in names if there[name] != own[name]]


def with_sizes(profile: Profile, fetched: Fetched) -> tuple[Profile, list[str]]:
    """The profile with the sizes of each backbone that does not state its own and whose files are here; and what is wrong with any.

    What a folder contradicts is told when its job is made (`recipes/jobs.py`), what a fetched model does here.
    """
    problems: list[str] = []
    backbones = {}
    for slot, backbone in profile.backbones.items():
        file = config_file(backbone, fetched)
        sized = backbone
        if file is not None and backbone.shape is None:
            try:
                sized = backbone.model_copy(update={"shape": shape_in(file)})
            except UsageProblem as problem:
                problems += [f"backbones.{slot}: {line}" for line in str(problem).splitlines()]
        elif file is not None and backbone.shape is not None and isinstance(backbone.source, HubBackbone):
            grown = bool(backbone.tokenizer.add_tokens or backbone.tokenizer.pad_token)
            problems += [f"backbones.{slot}.shape.{line}" for line in contradictions(backbone.shape, file, grown=grown)]
        backbones[slot] = sized
    return profile.model_copy(update={"backbones": backbones}), problems


def config_file(backbone: Backbone, fetched: Fetched) -> Path | None:
    """The `config.json` of a backbone whose files are here; None for one of the miniature and one that is somewhere else."""
    folder = Path(backbone.source.path) if isinstance(backbone.source, FolderBackbone) else None
    if isinstance(backbone.source, HubBackbone):
        folder = fetched(backbone)
    return folder / CONFIG if folder is not None and (folder / CONFIG).is_file() else None


def _stated(file: Path) -> Mapping[str, Any]:
    whole = read_object(file)
    inner = whole.get("text_config")
    return inner if isinstance(inner, Mapping) and "hidden_size" not in whole else whole
