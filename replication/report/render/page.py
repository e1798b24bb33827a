"""All reports, the claims and the audit's findings as one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from replication.data_folders import templates_folder
from replication.frozen import Frozen
from replication.report.audit.consistency import audit_findings
from replication.report.cells import Report, Verdict
from replication.report.claims.published import published_claims
from replication.report.render.view import MEANING, ReportView, view_of


class Part(Frozen):
    """A report with its place in the page."""

    anchor: str
    totals: str
    view: ReportView


def page(reports: Sequence[Report]) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(templates_folder()), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=True
    )
    parts = [Part(anchor=_anchor(one), totals=_totals(one), view=view_of(one)) for one in reports]
    return environment.get_template("report.html.j2").render(parts=parts, claims=published_claims(), findings=audit_findings())


def _anchor(report: Report) -> str:
    return f"{report.experiment}-{report.profile}-{report.protocol}"


def _totals(report: Report) -> str:
    """How many cells of ours have which verdict."""
    found = [cell.verdict for table in report.tables for row in table.rows for cell in row.cells]
    shown: list[Verdict] = [verdict for verdict in MEANING if verdict != "PUBLISHED ONLY" and verdict in found]
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in shown) or "no number of ours"
