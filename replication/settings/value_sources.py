"""Every value of a job's config with where it comes from: default, protocol, profile, row, `--set`; the later wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from replication.settings.experiments import Row
from replication.settings.overrides import DECIDED_ELSEWHERE, SECTIONS, Overrides
from replication.settings.profiles import Backbone, Profile
from replication.settings.protocols import Choice, Protocol


def sourced_values(
    section: str, *, protocol: Protocol, profile: Profile, overrides: Overrides, row: Mapping[str, Any] | None = None
) -> dict[str, Choice]:
    """Each settable field of a section (`sae`, `reward`, `scoring`, ...) as resolved."""
    model = SECTIONS[section]
    resolved = {
        name: Choice(value=field.get_default(call_default_factory=True), source="our choice: default of the configuration")
        for name, field in model.model_fields.items()
        if name not in DECIDED_ELSEWHERE[section] and not field.is_required()
    }
    resolved.update(protocol.section(section))
    for name, value in getattr(profile, section).items():
        resolved[name] = Choice(value=value, source=_replaced(section, name, profile, protocol))
    resolved.update({name: Choice(value=value, source="row of the registry") for name, value in (row or {}).items()})
    resolved.update({name: Choice(value=value, source="--set") for name, value in overrides.get(section, {}).items()})
    return resolved


def plain_values(found: Mapping[str, Choice]) -> dict[str, Any]:
    """The values alone."""
    return {name: choice.value for name, choice in found.items()}


def replacements(*, protocol: Protocol, profile: Profile, overrides: Overrides) -> list[str]:
    """One line for each value of the protocol that the profile or `--set` replaces by another."""
    lines = []
    for section in SECTIONS:
        resolved = sourced_values(section, protocol=protocol, profile=profile, overrides=overrides)
        for name, choice in protocol.section(section).items():
            now = resolved[name]
            if now.value != choice.value:
                why = profile.why.get(f"{section}.{name}", "") if now.source != "--set" else "--set"
                lines.append(f"{section}.{name}: {choice.value} -> {now.value}" + (f" ({why})" if why else ""))
    return lines


def geometry(row: Row, backbone: Backbone) -> dict[str, Choice]:
    """Layer, width and k of a row on a backbone, each with the paper's value that it stands for."""
    shape = backbone.sizes
    layer = backbone.layers[row.layer]
    found = {"layer": Choice(value=layer.value, source=f"the paper's layer {row.layer} of {backbone.stands_for}{_miss(layer.inexact)}")}
    if row.encoder != "none":
        width = Choice(value=row.width * shape.hidden_size, source=f"{row.width} x hidden size {shape.hidden_size}")
        found["n_latents"] = width
    if row.k:
        k = backbone.ks[row.k]
        found["k"] = Choice(value=k.value, source=f"the paper's k {row.k}{_miss(k.inexact)}")
    return found


def _miss(inexact: str) -> str:
    return f"; not exact: {inexact}" if inexact else ""


def _replaced(section: str, name: str, profile: Profile, protocol: Protocol) -> str:
    why = profile.why.get(f"{section}.{name}", "")
    instead = protocol.section(section).get(name)
    text = f"profile {profile.name}"
    if instead is not None:
        text += f", instead of {instead.value} ({instead.source})"
    return text + (f": {why}" if why else "")


def described(config: type[BaseModel], name: str) -> str:
    """The description of a config's field."""
    field = config.model_fields.get(name)
    return (field.description or "") if field else ""
