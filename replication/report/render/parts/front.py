"""The front page: every table's verdicts at a glance, a dot with a letter for each cell, and the claims as a tree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from replication.frozen import Frozen
from replication.report.cells import Report, Row, Table, Verdict
from replication.report.claims.definitions import ClaimResult
from replication.report.render.parts.addresses import address
from replication.report.render.sections import Section, filled
from replication.report.render.view import MEANING, cells_of

# A dot is told by its letter; the colour only repeats it.
LETTERS: Mapping[Verdict, str] = {
    "MATCH": "M", "EQUIVALENT": "E", "CONSISTENT": "C", "INCONCLUSIVE": "?", "DIFFERS": "D", "DEFECTIVE": "!", "MISSING": "–",
    "NOT COMPARABLE": "n", "PUBLISHED ONLY": "p",
}  # fmt: skip
OwnClaims = Mapping[str, Sequence[tuple[str, ClaimResult]]]


class Dot(Frozen):
    """One cell."""

    column: str
    verdict: Verdict
    letter: str


class GlanceRow(Frozen):
    """A row that was measured, or should have been."""

    label: str
    dots: tuple[Dot, ...]
    counts: str


class Glance(Frozen):
    """A table."""

    address: str
    title: str
    profile: str
    protocol: str
    comparable: bool
    counts: str
    rows: tuple[GlanceRow, ...]


class Said(Frozen):
    """What one basis says of a claim."""

    basis: str
    outcome: str
    detail: str


class ClaimView(Frozen):
    """A claim with what is known of it."""

    id: str
    says: str
    place: str
    test: str
    said: tuple[Said, ...]


def front(reports: Sequence[Report], claims: Sequence[ClaimResult], own: OwnClaims) -> Section:
    """Verdicts and claims on one screen."""
    glances = [_glance(report, table) for report in reports for table in report.tables]
    used = [verdict for verdict in LETTERS if any(verdict == dot.verdict for one in glances for row in one.rows for dot in row.dots)]
    legend = [(LETTERS[verdict], verdict, MEANING[verdict]) for verdict in used]
    html = filled("front", glances=glances, legend=legend, tree=tree(claims, own), bare=[one for one in reports if not one.tables])
    return Section(anchor="front", title="At a glance", html=html)


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many cells have which verdict, in the order of the legend; quoted ones do not count."""
    shown: list[Verdict] = [verdict for verdict in MEANING if verdict != "PUBLISHED ONLY" and verdict in verdicts]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in shown) or "no number of ours"


def _glance(report: Report, table: Table) -> Glance:
    rows = [_row(row, table) for row in table.rows if any(cell.verdict != "PUBLISHED ONLY" for cell in row.cells)]
    every = [dot.verdict for row in rows for dot in row.dots]
    return Glance(
        address=f"{address(report)}-{table.name}", title=table.title, profile=report.profile, protocol=report.protocol,
        comparable=report.comparable, counts=counted(every), rows=tuple(rows),
    )  # fmt: skip


def _row(row: Row, table: Table) -> GlanceRow:
    dots = tuple(Dot(column=cell.column, verdict=cell.verdict, letter=LETTERS[cell.verdict]) for cell in cells_of(row, table.columns))
    return GlanceRow(label=row.label, dots=dots, counts=counted([dot.verdict for dot in dots]))


def tree(claims: Sequence[ClaimResult], own: OwnClaims) -> list[tuple[str, list[ClaimView]]]:
    """Claims by the number that they share (C4a and C4b are of C4), each with the published numbers' outcome and ours."""
    grown: dict[str, list[ClaimView]] = {}
    for claim in claims:
        said = [Said(basis="published numbers", outcome=claim.outcome, detail=claim.detail)]
        said += [Said(basis=f"ours, {basis}", outcome=one.outcome, detail=one.detail) for basis, one in own.get(claim.id, ())]
        found = re.match(r"[A-Za-z]+\d+", claim.id)
        view = ClaimView(id=claim.id, says=claim.says, place=claim.place, test=claim.test, said=tuple(said))
        grown.setdefault(found[0] if found else claim.id, []).append(view)
    return list(grown.items())
