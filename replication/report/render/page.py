"""All reports, the claims and the audit's findings as one HTML page that needs nothing beside it and asks no network.

The page is a list of sections. Colours are the custom properties `--ink --paper --muted --line --soft --accent --good --warn --bad`,
for light, dark and print; its Content-Security-Policy lets inline styles, inline scripts and data images through and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replication.report.audit.consistency import audit_findings
from replication.report.cells import Report
from replication.report.claims.published import published_claims
from replication.report.render.parts.front import OwnClaims, front, tree
from replication.report.render.parts.records import costs, protocols, provenance
from replication.report.render.parts.shown_pictures import Shown, pictures
from replication.report.render.parts.tables import tables
from replication.report.render.sections import Section, filled

TITLE = "Interpretable Reward Model via Sparse Autoencoder: what was repeated"


def page(
    reports: Sequence[Report],
    *,
    extra: Sequence[Section] = (),
    drawn: Mapping[str, Sequence[Shown]] | None = None,
    forest: Shown | None = None,
    own: OwnClaims | None = None,
) -> str:
    """The page as text, with `extra` sections after the claims.

    `drawn` are pictures by the address of their report, `forest` is that of the claims, `own` what our results say of each claim, with
    the run that says it. Raises ValueError for two sections of one address.
    """
    claims, ours = published_claims(), own or {}
    sections = [
        front(reports, claims, ours),
        tables(reports),
        pictures(reports, drawn or {}),
        Section(anchor="claims", title="The paper's claims", html=filled("claims", tree=tree(claims, ours), forest=forest, own=bool(ours))),
        *extra,
        Section(anchor="audit", title="The paper's own numbers: findings of the audit", html=filled("audit", findings=audit_findings())),
        protocols(reports),
        provenance(reports),
        costs(reports),
    ]
    anchors = [one.anchor for one in sections]
    twice = sorted({one for one in anchors if anchors.count(one) > 1})
    if twice:
        raise ValueError(f"two sections of the page have the address {', '.join(twice)}")
    return filled("page", title=TITLE, sections=sections)
