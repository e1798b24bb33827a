"""The registry and the values of an experiment as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from replication.recipes.jobs import scoring_choices
from replication.recipes.jobs_needed import selected_rows
from replication.recipes.setting import Setting
from replication.report.claims.definitions import load_claims
from replication.settings.experiments import EXPERIMENTS, Row
from replication.settings.overrides import SECTIONS
from replication.settings.protocols import Choice, Protocol
from replication.settings.value_sources import described, geometry, replacements
from replication.usage_problems import unknown


def registry_text(kind: str | None, *, as_json: bool) -> str:
    """Experiments (or claims) as a text table or JSON."""
    if kind == "claim":
        claims = load_claims().claims
        if as_json:
            return json.dumps([claim.model_dump() for claim in claims], indent=2)
        return "\n".join(f"{claim.id:<6}{claim.table:<8}{claim.says}" for claim in claims)
    chosen = [one for one in EXPERIMENTS.values() if kind in (None, one.kind)]
    if as_json:
        rows = [{"name": one.name, "kind": one.kind, "title": one.title, "rows": [row.name for row in one.rows]} for one in chosen]
        return json.dumps(rows, indent=2)
    return "\n".join(f"{one.name:<10}{one.kind:<10}{len(one.rows):>3} rows we train   {one.title}" for one in chosen)


def values_of(setting: Setting) -> dict[str, dict[str, Choice]]:
    """Section -> field -> value and source, for the sections that every row shares; then each row's own geometry and variations."""
    sections = {section: setting.sourced(section) for section in SECTIONS}
    rows = selected_rows(setting)
    if setting.source == "released":
        return {f"scoring of {row.name}": scoring_choices(setting, row) for row in rows if row.name in setting.profile.released}
    return {**sections, **{f"row {row.name}": _row_values(setting, row) for row in rows}}


def _row_values(setting: Setting, row: Row) -> dict[str, Choice]:
    backbone = setting.profile.backbones.get(row.slot)
    known = backbone is not None and row.layer in backbone.layers and (not row.k or row.k in backbone.ks)
    found = geometry(row, backbone) if backbone is not None and known else {}
    found["encoder"] = Choice(value=row.encoder, source="row of the registry")
    if row.method != "reward":
        found["method"] = Choice(value=row.method, source="row of the registry")
    section = "safer" if row.method == "safer" else "sparse"
    own = {f"{section}.{name}": value for name, value in row.sparse.items()}
    own |= {**{f"sae.{name}": value for name, value in row.sae.items()}, **{f"reward.{name}": value for name, value in row.reward.items()}}
    return {**found, **{name: Choice(value=value, source="row of the registry") for name, value in own.items()}}


def values_text(setting: Setting, *, as_json: bool) -> str:
    """Every value with where it comes from."""
    sections = values_of(setting)
    if as_json:
        plain = {section: {name: choice.model_dump() for name, choice in found.items()} for section, found in sections.items()}
        return json.dumps(plain, indent=2, default=str)
    experiment, profile = setting.experiment, setting.profile
    lines = [f"{experiment.name}: {experiment.title}", f"profile {profile.name}: {profile.summary}"]
    if setting.source == "released":
        lines.append("released models: nothing is trained, so of a protocol nothing but scoring bears on them")
        lines += [] if sections else ["none of these rows is a released model in this profile"]
    else:
        lines += _protocol_lines(setting.protocol)
    for section, found in sections.items():
        lines += ["", section, *_lines(found)]
    if setting.source != "released":
        replaced = replacements(protocol=setting.protocol, profile=profile, overrides=setting.overrides)
        lines += ["", "values of the protocol that are replaced", *(f"  {line}" for line in replaced or ["none"])]
    lines += ["", "deviations", *(f"  {one.text} ({one.where})" for one in setting.deviations)]
    return "\n".join(lines)


def _protocol_lines(protocol: Protocol) -> list[str]:
    return [
        f"protocol {protocol.name}: {protocol.summary}",
        f"checkpoint rule: {protocol.checkpoint_rule.value} ({protocol.checkpoint_rule.source})",
        f"feature scores on: {protocol.feature_scores.value} ({protocol.feature_scores.source})",
    ]


def _lines(found: Mapping[str, Choice]) -> list[str]:
    width = max((len(_plain(choice.value)) for choice in found.values()), default=0)
    return [f"  {name:<32}{_plain(choice.value):<{max(width, 16)}}  {choice.source}" for name, choice in found.items()]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def field_text(setting: Setting, field: str) -> str:
    """One field (`name` or `section.name`) with its meaning and its source. Raises UsageProblems with the nearest names."""
    sections = values_of(setting)
    lines = []
    for section, found in sections.items():
        for name, choice in found.items():
            if field in (name, f"{section}.{name}"):
                meaning = described(SECTIONS[section], name) if section in SECTIONS else ""
                lines += [f"{section}.{name} = {_plain(choice.value)}", f"  from: {choice.source}"]
                lines += [f"  what: {meaning}"] if meaning else []
    if not lines:
        raise unknown("field", field, [name for found in sections.values() for name in found])
    return "\n".join(lines)
