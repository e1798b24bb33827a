"""The verdicts of a whole report: which cells are judged at all, and what many comparisons at once do to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from replication.report.audit.consistency import defective_cells
from replication.report.cells import Cell, Report, Row, Table, Verdict
from replication.report.published import PublishedTable, load_published, published_names
from replication.report.statistics import benjamini_hochberg
from replication.report.verdicts.cell import Judgement, Regime, VerdictError, verdict
from replication.report.verdicts.rules import VerdictRules, load_rules, rule_in_words

__all__ = ["IDENTITY", "Judgement", "VerdictError", "adjusted", "verdict", "with_verdicts"]
IDENTITY = "Identity of the weights with the published ones is claimed, not proven: no checksum of the published weights is known."
Judged = dict[tuple[str, str, str], Judgement]


def with_verdicts(report: Report, *, reference: str = "", folder: Path | None = None) -> Report:
    """The report with a verdict and its reason in every cell. Raises VerdictError, PublishedError.

    `reference` names the file of `tables/published` that tables with its columns are judged by, and whose values then stand as published;
    without it a table is judged by the file of its own name, or of its experiment.
    Cells that only quote the paper stay PUBLISHED ONLY; a missing cell keeps the reason that it came with.
    """
    rules = load_rules(folder)
    report = _referred(report, load_published(reference, folder)) if reference else report
    judged: Judged = {}
    for table in report.tables:
        published = _published_of(report, table, reference=reference, folder=folder)
        defects = defective_cells(published) if published is not None and published.overall_is_mean else {}
        for row in table.rows:
            judged.update(_row(report, table, row, published=published, defects=defects, rules=rules))
    judged = adjusted(judged, rules=rules)
    tables = tuple(_rewritten(table, judged, report.regime, rules) for table in report.tables)
    notes = report.notes
    if report.regime == "evaluation" and report.comparable and IDENTITY not in notes:
        notes = (*notes, IDENTITY)
    return report.model_copy(update={"tables": tables, "notes": notes})


def _published_of(report: Report, table: Table, *, reference: str, folder: Path | None) -> PublishedTable | None:
    """The file that a table is judged by; None where its columns are others (RM-Bench shares only the word Overall)."""
    known = published_names(folder)
    candidates = [load_published(name, folder) for name in dict.fromkeys((reference, table.name, report.experiment)) if name in known]
    return next((one for one in candidates if set(table.columns) <= set(one.columns)), None)


def _referred(report: Report, published: PublishedTable) -> Report:
    """The report with the values of a published file in place of those that it came with."""
    tables = []
    for table in report.tables:
        if not set(table.columns) <= set(published.columns):
            tables.append(table)
            continue
        rows = []
        for row in table.rows:
            cells = [cell.model_copy(update={"published": published.printed(row.name, cell.column)}) for cell in row.cells]
            rows.append(row.model_copy(update={"cells": tuple(cells)}))
        tables.append(table.model_copy(update={"rows": tuple(rows)}))
    return report.model_copy(update={"tables": tuple(tables)})


def _row(
    report: Report,
    table: Table,
    row: Row,
    *,
    published: PublishedTable | None,
    defects: Mapping[tuple[str, str], str],
    rules: VerdictRules,
) -> Judged:
    judged: Judged = {}
    subsets: dict[str, Verdict] = {}
    # Overall comes last, since in the evaluation regime it follows its subsets.
    for cell in sorted(row.cells, key=lambda one: one.column == "Overall"):
        # A baseline that nobody measures is quoted; a judge that was asked and has not answered is missing, and says why.
        if cell.ours is None and (cell.verdict == "PUBLISHED ONLY" or (row.origin == "paper-baseline" and not cell.reason)):
            found = Judgement(verdict="PUBLISHED ONLY", reason=cell.reason)
        else:
            found = _cell(
                report, row, cell, published=published, defect=defects.get((row.name, cell.column), ""), subsets=subsets, rules=rules
            )
        if cell.column != "Overall":
            subsets[cell.column] = found.verdict
        judged[table.name, row.name, cell.column] = found
    return judged


def _cell(
    report: Report,
    row: Row,
    cell: Cell,
    *,
    published: PublishedTable | None,
    defect: str,
    subsets: Mapping[str, Verdict],
    rules: VerdictRules,
) -> Judgement:
    ours = cell.ours
    if ours is None:
        return Judgement(verdict="MISSING", reason=cell.reason or "not measured")
    if published is not None and published.unit not in ("percent", "fraction"):
        return Judgement(verdict=cell.verdict, reason=cell.reason)
    if cell.published is None:
        return Judgement(verdict="NOT COMPARABLE", reason=cell.reason or "the reference has no such number")
    why = "" if report.comparable else report.why_not_comparable or "scale, protocol or data differ from the reference"
    why = published.not_comparable if published is not None and published.not_comparable else why
    known = next((one for one in published.rows if one.name == row.name), None) if published is not None else None
    expected = published.n.get(cell.column, ours.n) if published is not None else ours.n
    if not why and ours.n < expected:
        return Judgement(verdict="MISSING", reason=f"incomplete: {ours.n:,} of {expected:,} items")
    if not why and ours.n > expected:
        why = f"{ours.n:,} items, the reference has {expected:,}"
    return verdict(
        regime=report.regime, column=cell.column, published=cell.published, value=ours.value, n=ours.n, correct=ours.correct,
        per_seed=ours.per_seed, standard_error=ours.standard_error, rounding=published.rounding if published is not None else "half-even",
        grain=(known.grain if known is not None else None) or "halves", subsets=subsets, why_not_comparable=why, defect=defect, rules=rules,
    )  # fmt: skip


def adjusted(judged: Judged, *, rules: VerdictRules) -> Judged:
    """Benjamini-Hochberg over the retrained cells, for difference and for equivalence: what does not survive is weakened."""
    tested = [place for place, one in judged.items() if one.p_differs is not None and one.p_equivalent is not None]
    differs = dict(zip(tested, benjamini_hochberg([judged[place].p_differs or 0.0 for place in tested]), strict=True))
    equivalent = dict(zip(tested, benjamini_hochberg([judged[place].p_equivalent or 0.0 for place in tested]), strict=True))
    result = dict(judged)
    for place in tested:
        one = judged[place]
        if one.verdict == "DIFFERS" and differs[place] > rules.alpha:
            reason = f"{one.reason}; a difference alone, but not among {len(tested)} cells (adjusted p {differs[place]:.3f})"
            result[place] = one.model_copy(update={"verdict": "INCONCLUSIVE", "reason": reason})
        elif one.verdict == "EQUIVALENT" and equivalent[place] > rules.alpha:
            inside = one.low is not None and one.high is not None and one.low <= 0 <= one.high and one.seeds >= rules.prediction_seeds
            reason = f"{one.reason}; equivalent alone, but not among {len(tested)} cells (adjusted p {equivalent[place]:.3f})"
            result[place] = one.model_copy(update={"verdict": "CONSISTENT" if inside else "INCONCLUSIVE", "reason": reason})
    return result


def _rewritten(table: Table, judged: Judged, regime: Regime, rules: VerdictRules) -> Table:
    judgeable = {cell.column for row in table.rows for cell in row.cells if cell.published is not None and cell.ours is not None}
    told = {column: rule_in_words(rules, column, regime) for column in table.columns if column in judgeable and column in rules.margin}
    rows = []
    for row in table.rows:
        cells = []
        for cell in row.cells:
            found = judged[table.name, row.name, cell.column]
            cells.append(cell.model_copy(update={"verdict": found.verdict, "reason": found.reason}))
        rows.append(row.model_copy(update={"cells": tuple(cells)}))
    return table.model_copy(update={"rows": tuple(rows), "rules": told})
