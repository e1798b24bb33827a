"""All reports, the claims and the audit's findings as one HTML page that needs nothing beside it and asks no network.

The page is a list of sections. Colours are the custom properties `--ink --paper --muted --line --soft --accent --good --warn --bad`,
for light, dark and print; its Content-Security-Policy lets inline styles, inline scripts and data images through and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from replication.frozen import Frozen
from replication.report.audit.consistency import audit_findings
from replication.report.cells import Report, Verdict
from replication.report.claims.published import published_claims
from replication.report.render.sections import Section, filled
from replication.report.render.view import MEANING, ReportView, view_of

TITLE = "Interpretable Reward Model via Sparse Autoencoder: what was repeated"


class Part(Frozen):
    """A report with its place in the page."""

    anchor: str
    totals: str
    view: ReportView


def page(reports: Sequence[Report], *, extra: Sequence[Section] = ()) -> str:
    """The page as text, with `extra` sections after the claims. Raises ValueError for two sections of one address."""
    parts = [Part(anchor=_anchor(one), totals=_totals(one), view=view_of(one)) for one in reports]
    found = audit_findings()
    sections = [
        Section(anchor="tables", title="Tables", html=filled("tables", parts=parts)),
        Section(anchor="claims", title="The paper's claims, from its published numbers", html=filled("claims", claims=published_claims())),
        *extra,
        Section(anchor="audit", title="The paper's own numbers: findings of the audit", html=filled("audit", findings=found)),
    ]
    anchors = [one.anchor for one in sections]
    twice = sorted({one for one in anchors if anchors.count(one) > 1})
    if twice:
        raise ValueError(f"two sections of the page have the address {', '.join(twice)}")
    return filled("page", title=TITLE, parts=parts, sections=sections)


def _anchor(report: Report) -> str:
    return f"{report.experiment}-{report.profile}-{report.protocol}"


def _totals(report: Report) -> str:
    """How many cells of ours have which verdict."""
    found = [cell.verdict for table in report.tables for row in table.rows for cell in row.cells]
    shown: list[Verdict] = [verdict for verdict in MEANING if verdict != "PUBLISHED ONLY" and verdict in found]
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in shown) or "no number of ours"
