"""Where released models and starts of stage 2 lie, as given on the command line: `--set released.<row>.path=FOLDER` and the like.

Such assignments say where something is and not what is computed from it: they change the profile and no config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from replication.settings.overrides import parse_value
from replication.settings.profiles import UNKNOWN_REVISION, HubBackbone, Profile, pin_name
from replication.usage_problems import UsageProblems, nearest

FIELDS = {
    "released": ("path", "repository", "revision", "label", "conditions", "chat_template", "pad_token", "end_of_turn"),
    "starts": ("use", "path", "repository", "revision", "layout", "file", "layer"),
}
TOKENIZER_FIELDS = ("chat_template", "pad_token", "end_of_turn")


def split_locations(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(assignments to released models and starts, the others), each in order."""
    places = [one for one in assignments if one.strip().partition(".")[0] in FIELDS]
    return places, [one for one in assignments if one not in places]


def with_locations(profile: Profile, assignments: Sequence[str]) -> Profile:
    """The profile with these assignments made. Raises UsageProblems with every mistake at once."""
    if not assignments:
        return profile
    raw = profile.model_dump(mode="python")
    problems: list[str] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        section, _, rest = key.strip().partition(".")
        name, _, field = rest.rpartition(".")
        if not equals or not name or field not in FIELDS[section]:
            valid = [f"{section}.<name>.{one}" for one in FIELDS[section]]
            problems.append(f"--set {assignment}: {nearest(f'{section}.<name>.{field}', valid)}")
            continue
        _assign(raw[section].setdefault(name, {}), field, text.strip())
    if problems:
        raise UsageProblems(problems)
    try:
        return Profile.model_validate(raw)
    except ValidationError as error:
        raise UsageProblems([_problem(one["loc"], one["msg"]) for one in error.errors()]) from error


def _problem(place: Sequence[int | str], message: str) -> str:
    """A line on what does not fit; a source is never typed as such, but by its path or its repository."""
    if len(place) == 3 and place[0] in FIELDS and place[2] == "source" and message == "Field required":
        entry = f"{place[0]}.{place[1]}"
        return f"--set {entry}: says nowhere which model; set {entry}.path=FOLDER or {entry}.repository=OWNER/NAME too"
    return f"--set {'.'.join(str(part) for part in place)}: {message}"


def with_pins(profile: Profile, pins: Mapping[str, str]) -> Profile:
    """The profile with the known commits in place of `unknown`, for repositories that an assignment named."""

    def known(source: Any) -> Any:
        name = pin_name(source.repository, source.revision) if isinstance(source, HubBackbone) else ""
        return source.model_copy(update={"revision": pins[name]}) if name in pins else source

    released = {name: one.model_copy(update={"source": known(one.source)}) for name, one in profile.released.items()}
    starts = {slot: one.model_copy(update={"source": known(one.source)}) for slot, one in profile.starts.items()}
    return profile.model_copy(update={"released": released, "starts": starts})


def _assign(entry: dict[str, Any], field: str, text: str) -> None:
    value = parse_value(text)
    if field == "path":
        entry["source"] = {"kind": "folder", "path": str(Path(text).expanduser().resolve())}
    elif field in ("repository", "revision"):
        source = entry.get("source") or {}
        kept = source if source.get("kind") == "hub" else {"kind": "hub", "repository": "", "revision": UNKNOWN_REVISION}
        changed = {**kept, field: str(value)}
        entry["source"] = {**changed, "revision": UNKNOWN_REVISION} if field == "repository" and value != kept["repository"] else changed
    elif field in TOKENIZER_FIELDS:
        entry["tokenizer"] = {**(entry.get("tokenizer") or {}), field: str(value)}
    else:
        entry[field] = value
