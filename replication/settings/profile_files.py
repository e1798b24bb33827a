"""Reads a profile's TOML file and tells everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from replication.settings.model_sizes import Fetched, nothing_fetched, with_sizes
from replication.settings.overrides import SECTIONS, resources_problems, section_problems
from replication.settings.profiles import COMMIT, Profile, pin_name, shipped_profiles
from replication.settings.toml_files import read_toml
from replication.usage_problems import UsageProblems, nearest

PATH_KEYS = ("path",)
VARIABLE = re.compile(r"\$\{(\w+)\}")


def load_profile(
    name_or_file: str, *, environment: Mapping[str, str], pins: Mapping[str, str] | None = None, fetched: Fetched = nothing_fetched
) -> Profile:
    """The profile of that name or file.

    `environment` expands ${VARIABLES} in paths; `pins` (`pin_name` -> commit) replaces revisions that are no commits; sizes that it does
    not state are those of the `config.json` of its folders and of what is `fetched`.
    Raises UsageProblems with one line for each mistake: file, key, what, nearest valid name.
    """
    path, raw = read_toml("profile", name_or_file, shipped_profiles())
    problems: list[str] = []
    raw = _expand(raw, base=path.resolve().parent, environment=environment, pins=pins or {}, problems=problems)
    problems += _schema_problems(raw) + _setting_problems(raw)
    if problems:
        raise _told(path, problems)
    profile, problems = with_sizes(Profile.model_validate(raw), fetched)
    problems += _cross_problems(profile)
    if problems:
        raise _told(path, problems)
    return profile


def _told(path: Path, problems: Sequence[str]) -> UsageProblems:
    return UsageProblems([f"{path}: {problem}" for problem in dict.fromkeys(problems)])


def _expand(value: Any, *, base: Path, environment: Mapping[str, str], pins: Mapping[str, str], problems: list[str]) -> Any:
    """The same nested value with absolute paths and pinned revisions."""
    if isinstance(value, list):
        return [_expand(one, base=base, environment=environment, pins=pins, problems=problems) for one in value]
    if not isinstance(value, dict):
        return value
    expanded = {key: _expand(one, base=base, environment=environment, pins=pins, problems=problems) for key, one in value.items()}
    for key in PATH_KEYS:
        if isinstance(expanded.get(key), str):
            missing = [name for name in VARIABLE.findall(expanded[key]) if not environment.get(name)]
            problems += [f"{key} = {expanded[key]!r}: environment variable {name} is not set" for name in missing]
            text = VARIABLE.sub(lambda match: environment.get(match[1], match[0]), expanded[key])
            expanded[key] = str(base / Path(text).expanduser())
    revision, repository = expanded.get("revision"), expanded.get("repository")
    if isinstance(revision, str) and isinstance(repository, str) and not COMMIT.fullmatch(revision):
        expanded["revision"] = pins.get(pin_name(repository, revision), revision)
    return expanded


def _schema_problems(raw: dict[str, Any]) -> list[str]:
    """What pydantic finds, in our words."""
    try:
        Profile.model_validate(raw)
    except ValidationError as error:
        return [_in_words(raw, dict(one)) for one in error.errors()]
    return []


def _in_words(raw: dict[str, Any], error: Mapping[str, Any]) -> str:
    loc = tuple(error["loc"])
    key = _key_path(raw, loc)
    if error["type"] == "extra_forbidden":
        model = _model_at(Profile, loc[:-1])
        return f"{key}: unknown key; {nearest(str(loc[-1]), model.model_fields if model else ())}"
    if error["type"] == "missing":
        return f"{key}: missing; this key is required"
    if error["type"] == "literal_error" and loc[-1] == "[key]":
        return f"{key}: unknown name; expected {error['ctx']['expected']}"
    if error["type"] == "literal_error":
        options = re.findall(r"'([^']+)'", str(error["ctx"]["expected"]))
        return f"{key}: {error['input']!r} is not valid; {nearest(str(error['input']), options)}"
    if error["type"].startswith("union_tag"):
        return f"{key}.kind: {error['msg']}"
    return f"{key}: {error['msg']}, got {error['input']!r}"


def _key_path(raw: Any, loc: Sequence[Any]) -> str:
    """The key as written in the file: pydantic's location without the tags of unions."""
    parts: list[str] = []
    here = raw
    for part in loc[:-1]:
        if isinstance(here, dict) and part in here:
            here = here[part]
            parts.append(str(part))
    if loc[-1] != "[key]":
        parts.append(str(loc[-1]))
    return ".".join(parts)


def _model_at(annotation: Any, loc: Sequence[Any]) -> type[BaseModel] | None:
    """The model type at a pydantic location."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _model_at(get_args(annotation)[0], loc)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return annotation
        field = annotation.model_fields.get(str(loc[0]))
        return _model_at(field.annotation, loc[1:]) if field else None
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        tagged = [one for one in get_args(annotation) if loc and loc[0] in get_args(one.model_fields["kind"].annotation)]
        return _model_at(tagged[0], loc[1:]) if tagged else None
    if origin and len(get_args(annotation)) == 2 and loc:
        return _model_at(get_args(annotation)[1], loc[1:])
    return None


def _setting_problems(raw: Mapping[str, Any]) -> list[str]:
    """Entries of the config sections that no config has. Resources are pydantic's own and already checked, but for the kind."""
    found: list[str] = []
    for section in SECTIONS:
        values = raw.get(section, {})
        if isinstance(values, Mapping):
            found += [f"{section}.{key}: {what}" for key, what in section_problems(section, values)]
    released = raw.get("released", {})
    for name, model in released.items() if isinstance(released, Mapping) else ():
        recorded = model.get("recorded", {}) if isinstance(model, Mapping) else {}
        for which, one in recorded.items() if isinstance(recorded, Mapping) else ():
            values = one.get("scoring", {}) if isinstance(one, Mapping) else {}
            place = f"released.{name}.recorded.{which}.scoring"
            found += [f"{place}.{key}: {what}" for key, what in section_problems("scoring", values)]
    resources = raw.get("resources", {})
    if isinstance(resources, Mapping):
        found += [f"resources.{kind}: {what}" for kind in resources for key, what in resources_problems(kind, {}) if not key]
    return found


def _cross_problems(profile: Profile) -> list[str]:
    """What only shows when the parts are seen together."""
    found: list[str] = []
    for slot, backbone in profile.backbones.items():
        if backbone.shape is None:
            if backbone.source.kind == "miniature":
                found.append(f"backbones.{slot}.shape: missing; this key is required where the model is made")
            continue
        deepest = backbone.shape.num_hidden_layers
        for paper, counterpart in backbone.layers.items():
            if counterpart.value > deepest:
                found.append(f"backbones.{slot}.layers.{paper}: layer {counterpart.value} is beyond the model's {deepest} layers")
    found += _evaluation_problems(profile)
    if not profile.comparable and not profile.why_not_comparable:
        found.append("why_not_comparable: missing; comparable = false needs a reason, which the table prints")
    for key in profile.why:
        section, _, name = key.partition(".")
        if section not in SECTIONS or name not in getattr(profile, section):
            found.append(f"why.{key}: explains a value that this profile does not set")
    return found


def _evaluation_problems(profile: Profile) -> list[str]:
    """Held-out pairs must exist, and only the evaluation set may come from them; a miniature makes its own."""
    found: list[str] = []
    for name, benchmark in profile.benchmarks.items():
        kind = benchmark.source.kind
        if name == "evaluation" and kind not in ("preferences", "miniature"):
            found.append("benchmarks.evaluation.source.kind: held-out pairs come from 'preferences' or 'miniature'")
        if name != "evaluation" and kind == "preferences":
            found.append(f"benchmarks.{name}.source.kind: 'preferences' is for the evaluation set only")
        if kind == "preferences" and profile.preferences.evaluation_split == "none" and profile.preferences.source.kind != "miniature":
            found.append("preferences.evaluation_split: 'none' leaves no pairs for [benchmarks.evaluation]; try 'prompt-sha256-mod-5'")
    return found
