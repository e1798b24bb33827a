"""Consistency of the published numbers among themselves: no GPU, no model, only arithmetic.

A `defect` makes the cell unusable as a reference, a `doubt` deserves a reader's attention, a `note` is a fact worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from replication.frozen import Frozen
from replication.report.audit.findings import Finding, Severity
from replication.report.audit.references import board_findings, release_findings, text_findings
from replication.report.counts import Interval, Rounding, achievable_counts, coarsest_grain, interval_of, mean_interval, overlap
from replication.report.published import PublishedRow, PublishedTable, countable_columns, load_published

PAPER_TABLES = ("table1", "table2", "table3")
DUPLICATE_COLUMNS = 5
__all__ = ["AuditSummary", "Finding", "Severity", "audit_findings", "defective_cells", "summary"]


class AuditSummary(Frozen):
    """How much was looked at."""

    tables: int
    rows: int
    countable_cells: int
    means: int
    defects: int
    doubts: int
    notes: int


def audit_findings(folder: Path | None = None) -> list[Finding]:
    """All findings over the published files, in the order of tables, rows and columns. Raises PublishedError."""
    tables = [load_published(name, folder) for name in PAPER_TABLES]
    board, released = load_published("leaderboard", folder), load_published("released", folder)
    findings: list[Finding] = []
    for table in tables:
        findings += table_findings(table)
        findings += text_findings(table, board)
    findings += _linked_rows(tables)
    findings += board_findings(tables[0], board)
    findings += release_findings(tables[0], board, released)
    return findings


def table_findings(table: PublishedTable) -> list[Finding]:
    """Granularity, means, duplicates, rounding rule and labels of one table."""
    findings: list[Finding] = []
    for row in table.rows:
        counts = list(_count_findings(table, row))
        findings += counts
        findings += _mean_findings(table, row, counts)
    return [*findings, *_duplicates(table), *_rounding_rule(table), *_spacing(table)]


def defective_cells(table: PublishedTable) -> dict[tuple[str, str], str]:
    """The cells of a table that fail the audit, as (row, column) to the reason."""
    found: dict[tuple[str, str], str] = {}
    for finding in table_findings(table):
        if finding.severity != "defect":
            continue
        columns = table.columns if finding.column == "*" else (finding.column,)
        for column in columns:
            found.setdefault((finding.row, column), finding.detail)
    return found


def summary(findings: Iterable[Finding], folder: Path | None = None) -> AuditSummary:
    """How many tables, cells and means were checked, and what came of it."""
    tables = [load_published(name, folder) for name in PAPER_TABLES]
    severities = [finding.severity for finding in findings]
    return AuditSummary(
        tables=len(tables),
        rows=sum(len(table.rows) for table in tables),
        countable_cells=sum(len(table.rows) * len(countable_columns(table)) for table in tables),
        means=sum(len(table.rows) for table in tables if table.overall_is_mean),
        defects=severities.count("defect"),
        doubts=severities.count("doubt"),
        notes=severities.count("note"),
    )


def _count_findings(table: PublishedTable, row: PublishedRow) -> Iterator[Finding]:
    for column in countable_columns(table) if row.grain else ():
        interval, n = table.interval(row.name, column), table.n[column]
        grain, printed = coarsest_grain(interval, n=n), row.cells[column]
        if grain == "integers":
            continue
        if grain is None or not table.counts(row.name, column):
            found = f"no {'whole or partial' if grain is None else 'integer or half'} count of {n} prints as {printed}"
            rule = "truncated" if table.rounding == "truncate" else "rounded"
            nearest = "" if grain is None else f"; only {_mixed(achievable_counts(interval, n=n, grain=grain)[0])} would"
            repairs = _repairs(table, row, column)
            yield Finding(
                table=table.name, row=row.name, column=column, kind="granularity", severity="defect", printed=printed,
                detail=f"{found} ({rule}){nearest}", suspected_value=repairs[0] if len(repairs) == 1 else "",
            )  # fmt: skip
            continue
        counts = achievable_counts(interval, n=n, grain=grain)
        yield Finding(
            table=table.name, row=row.name, column=column, kind="partial-credit", severity="note", printed=printed,
            detail=f"needs partial credit for ties: {_mixed(counts[0])} of {n}" + _other_rule(table, printed, n),
        )  # fmt: skip


def _mixed(count: Fraction) -> str:
    whole, rest = divmod(count, 1)
    return f"{whole}" if not rest else f"{whole} {rest}"


def _other_rule(table: PublishedTable, printed: str, n: int) -> str:
    """A whole count under the other rounding rule is worth a word, since it is the simpler explanation."""
    other: Rounding = "truncate" if table.rounding == "half-even" else "half-even"
    whole = achievable_counts(interval_of(printed, rounding=other), n=n, grain="integers")
    if not whole:
        return ""
    return f"; or the whole count {whole[0]} {'truncated instead of rounded' if other == 'truncate' else 'rounded instead of truncated'}"


def _row_mean(table: PublishedTable, row: PublishedRow, **replaced: str) -> Interval:
    columns = [column for column in table.columns if column != "Overall"]
    return mean_interval(
        [interval_of(replaced.get(column) or table.printed(row.name, column) or "", rounding=table.rounding) for column in columns]
    )


def _repairs(table: PublishedTable, row: PublishedRow, column: str) -> list[str]:
    """The one-digit changes of a cell that give a whole count and a row whose mean is its Overall."""
    printed, overall = row.cells[column], table.interval(row.name, "Overall")
    found = []
    for place, digit in enumerate(printed):
        for new in "0123456789" if digit.isdigit() else "":
            changed = printed[:place] + new + printed[place + 1 :]
            counts = achievable_counts(interval_of(changed, rounding=table.rounding), n=table.n[column], grain="integers")
            if new != digit and counts and overlap(_row_mean(table, row, **{column: changed}), overall):
                found.append(changed)
    return found


def _mean_findings(table: PublishedTable, row: PublishedRow, counts: list[Finding]) -> Iterator[Finding]:
    if not table.overall_is_mean:
        return
    mean, overall = _row_mean(table, row), table.interval(row.name, "Overall")
    if overlap(mean, overall):
        return
    broken = [finding for finding in counts if finding.severity == "defect"]
    printed = {column: table.printed(row.name, column) or "" for column in table.columns}
    # Truncated digits average to a lower bound; the number shown is the plain mean of what is printed.
    parts = [Fraction(printed[column]) for column in table.columns if column != "Overall"]
    value = f"{float(sum(parts, Fraction(0)) / len(parts)):.{len(printed['Overall'].partition('.')[2])}f}"
    detail = f"the printed cells average {value}, not {printed['Overall']}"
    severity: Severity = "doubt" if broken else "defect"
    if broken and broken[0].suspected_value:
        detail += f"; with {broken[0].suspected_value} in {broken[0].column} the mean is right"
    yield Finding(
        table=table.name, row=row.name, column="Overall", kind="mean", severity=severity, printed=printed["Overall"],
        detail=detail, suspected_value="" if broken else value,
    )  # fmt: skip


def _duplicates(table: PublishedTable) -> Iterator[Finding]:
    for place, left in enumerate(table.rows):
        for right in table.rows[place + 1 :]:
            if f"{table.name}/{right.name}" in left.same_as:
                continue
            equal = [column for column in table.columns if left.cells[column] == right.cells[column]]
            if len(equal) < DUPLICATE_COLUMNS:
                continue
            for one, other in ((left, right), (right, left)):
                different = ", ".join(
                    f"{column} {one.cells[column]} against {other.cells[column]}" for column in table.columns if column not in equal
                )
                apart = f" ({different})" if different else ""
                yield Finding(
                    table=table.name, row=one.name, column="*", kind="duplicate", severity="defect", printed="",
                    detail=f"equal to row {other.label} in {', '.join(equal)}{apart}, though it is another model",
                )  # fmt: skip


def _rounding_rule(table: PublishedTable) -> Iterator[Finding]:
    """How many cells are whole counts under one rule only: evidence for the rule that the file states."""
    fits: dict[Rounding, int] = {"half-even": 0, "truncate": 0}
    cells = 0
    for row in table.rows:
        for column in countable_columns(table):
            cells += 1
            whole = {
                rule: bool(achievable_counts(interval_of(row.cells[column], rounding=rule), n=table.n[column], grain="integers"))
                for rule in fits
            }
            for rule, other in (("half-even", "truncate"), ("truncate", "half-even")):
                fits[rule] += whole[rule] and not whole[other]  # type: ignore[index]
    if fits["truncate"] > fits["half-even"] or table.rounding == "truncate":
        wrong = (table.rounding == "truncate") != (fits["truncate"] > fits["half-even"])
        yield Finding(
            table=table.name, row="*", column="*", kind="rounding-rule", severity="doubt" if wrong else "note", printed="",
            detail=f"{fits['truncate']} of {cells} accuracy cells are whole counts only if truncated, {fits['half-even']} only if rounded",
        )  # fmt: skip


def _spacing(table: PublishedTable) -> Iterator[Finding]:
    """One row label that breaks an otherwise even spacing of its block."""
    for group in dict.fromkeys(row.group for row in table.rows):
        rows = [row for row in table.rows if row.group == group and row.name.rpartition("-")[2].isdigit()]
        values = [int(row.name.rpartition("-")[2]) for row in rows]
        if len(values) < 5 or len({b - a for a, b in pairwise(values)}) == 1:
            continue
        step = values[1] - values[0]
        off = [(row, values[0] + place * step) for place, row in enumerate(rows) if values[place] != values[0] + place * step]
        if len(off) == 1:
            row, expected = off[0]
            yield Finding(
                table=table.name, row=row.name, column="*", kind="label", severity="note", printed=row.label,
                detail=f"the other rows of its block are {step} apart, so {expected} would be expected", suspected_value=str(expected),
            )  # fmt: skip


def _linked_rows(tables: list[PublishedTable]) -> Iterator[Finding]:
    """Rows that are meant to be the same model must agree in every cell, and in size."""
    by_name = {table.name: table for table in tables}
    for table in tables:
        for row in table.rows:
            for link in row.same_as:
                other_table, _, other_name = link.partition("/")
                if (other_table, other_name) <= (table.name, row.name):
                    continue
                yield from _compare_linked(table, row, by_name[other_table], by_name[other_table].row(other_name))


def _compare_linked(table: PublishedTable, row: PublishedRow, other_table: PublishedTable, other: PublishedRow) -> Iterator[Finding]:
    for column in table.columns:
        if not overlap(table.interval(row.name, column), other_table.interval(other.name, column)):
            yield Finding(
                table=table.name, row=row.name, column=column, kind="link", severity="defect", printed=row.cells[column],
                detail=f"{other_table.name} prints {other.cells[column]} for the same model",
            )  # fmt: skip
    left, right = parameters(row.size), parameters(other.size)
    if left is not None and right is not None and round(float(abs(left - right)), 1) >= 0.1:
        yield Finding(
            table=table.name, row=row.name, column="Size", kind="size", severity="note", printed=row.size,
            detail=f"{other_table.name} prints {other.size} for the same model, SAE included; other rows of this table include it",
        )  # fmt: skip


def parameters(size: str) -> Fraction | None:
    """Billions of parameters in a printed size such as `1.5B` or `(1.5+0.15) B`; None where there is none."""
    parts = size.replace("(", "").replace(")", "").replace("B", "").strip().split("+")
    try:
        return sum((Fraction(part.strip()) for part in parts), Fraction(0))
    except ValueError:
        return None
