"""What stands behind the tables: protocols with their sources, artifacts and inputs, and what it all cost."""

from __future__ import annotations

from collections.abc import Sequence

from replication.frozen import Frozen
from replication.report.cells import Input, Provenance, Report
from replication.report.render.parts.addresses import titled
from replication.report.render.sections import Section, filled
from replication.settings.protocols import PROTOCOLS, Choice

SECTIONS = ("sae", "reward", "scoring", "steering")


class Value(Frozen):
    """A protocol's value, and where it comes from."""

    text: str
    source: str


class ValueRow(Frozen):
    """A field over all protocols."""

    name: str
    values: tuple[Value, ...]
    differs: bool


class Cost(Frozen):
    """What a kind of work took, over distinct artifacts."""

    name: str
    artifacts: int
    hours: float
    gpu_hours: float


def protocols(reports: Sequence[Report]) -> Section:
    """Every value of every protocol with its source, those first in which they differ."""
    rows = [_values(section, name) for section in SECTIONS for name in _fields(section)]
    used = {report.protocol for report in reports}
    html = filled(
        "protocols", protocols=list(PROTOCOLS.values()), used=used, differing=[row for row in rows if row.differs],
        common=[row for row in rows if not row.differs],
    )  # fmt: skip
    return Section(anchor="protocols", title="Protocols", html=html)


def _fields(section: str) -> list[str]:
    return list(dict.fromkeys(name for one in PROTOCOLS.values() for name in one.section(section)))


def _values(section: str, name: str) -> ValueRow:
    found = [one.section(section).get(name) for one in PROTOCOLS.values()]
    values = tuple(_value(choice) for choice in found)
    return ValueRow(name=f"{section}.{name}", values=values, differs=len({one.text for one in values}) > 1)


def _value(choice: Choice | None) -> Value:
    return Value(text="—", source="left to the default") if choice is None else Value(text=str(choice.value), source=choice.source)


def distinct(reports: Sequence[Report]) -> list[Provenance]:
    """Every artifact once, however many tables rest on it."""
    return list({(one.kind, one.key): one for report in reports for one in report.provenance}.values())


def provenance(reports: Sequence[Report]) -> Section:
    """Artifacts and inputs, the commands of the reports, and with what they were computed."""
    inputs: dict[tuple[str, str], Input] = {(one.id, one.revision): one for report in reports for one in report.inputs}
    commands = [(titled(report), report.command) for report in reports if report.command]
    computed = [(titled(report), report.computed_with) for report in reports if report.computed_with]
    html = filled("provenance", artifacts=distinct(reports), inputs=list(inputs.values()), commands=commands, computed=computed)
    return Section(anchor="provenance", title="Provenance", html=html)


def costs(reports: Sequence[Report]) -> Section:
    """Hours by report and by kind of work; an artifact that several tables share is counted once in the total."""
    every = distinct(reports)
    kinds = [_cost(kind, [one for one in every if one.kind == kind]) for kind in dict.fromkeys(one.kind for one in every)]
    kinds.sort(key=lambda one: -one.hours)
    by_report = [_cost(titled(report), report.provenance) for report in reports if report.provenance]
    html = filled("costs", kinds=kinds, reports=by_report, total=_cost("all, each artifact once", every))
    return Section(anchor="costs", title="Costs", html=html)


def _cost(name: str, artifacts: Sequence[Provenance]) -> Cost:
    hours = sum(one.seconds for one in artifacts) / 3600
    return Cost(name=name, artifacts=len(artifacts), hours=hours, gpu_hours=sum(one.seconds * one.gpus for one in artifacts) / 3600)
