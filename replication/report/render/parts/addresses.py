"""Names of places in the page: letters, digits and hyphens, whatever a report is called."""

from __future__ import annotations

import re

from replication.report.cells import Report


def address(report: Report) -> str:
    """Where a report stands in the page."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part) for part in (report.experiment, report.profile, report.protocol))


def titled(report: Report) -> str:
    """A report in one line."""
    return f"{report.title}: profile {report.profile}, protocol {report.protocol}"
