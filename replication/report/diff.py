"""Our results against a reference: the paper, the leaderboard, the released checkpoint's row, or another results file."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from replication.report.cells import Cell, Frozen, Measurement, Report, Row, Table, Verdict
from replication.report.published import PublishedTable, load_published
from replication.report.verdict_rules import VerdictRules, load_rules
from replication.report.verdicts import with_verdicts
from replication.report.view import cells_of, decimals_of

REFERENCES: Mapping[str, str] = {"leaderboard": "leaderboard", "release": "released"}
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
SEVERITY: tuple[Verdict, ...] = (
    "DIFFERS", "MISSING", "INCONCLUSIVE", "DEFECTIVE", "NOT COMPARABLE", "CONSISTENT", "EQUIVALENT", "MATCH", "PUBLISHED ONLY",
)  # fmt: skip
# In the documented order of precedence: what is missing comes before what differs.
EXIT_CODES: tuple[tuple[Verdict, int], ...] = (("MISSING", 5), ("DIFFERS", 3), ("INCONCLUSIVE", 4))


class ResultsError(ValueError):
    """A results file that cannot be trusted: names the file, the place and what is wrong. No verdict is given."""

    exit_code = 6


class DiffRow(Frozen):
    """One compared cell."""

    table: str
    row: str
    label: str
    column: str
    ours: str = Field(description="As shown; empty where there is none.")
    reference: str = Field(description="As printed by the reference; empty where it has none.")
    verdict: Verdict
    reason: str


class Diff(Frozen):
    """All compared cells, in the order of the report."""

    experiment: str
    profile: str
    against: str
    rows: tuple[DiffRow, ...]
    notes: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """How many cells have a verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def worst_first(self) -> tuple[DiffRow, ...]:
        """The rows by severity of their verdict, else in order."""
        return tuple(sorted(self.rows, key=lambda row: SEVERITY.index(row.verdict)))


def diff(report: Report, against: str, *, folder: Path | None = None) -> Diff:
    """The verdicts of a report against `paper`, `leaderboard`, `release` or the path of another results file.

    Raises ResultsError for a file that is no results file, PublishedError and VerdictError as the verdicts do.
    """
    if against == "paper":
        judged = with_verdicts(report, folder=folder)
    elif against in REFERENCES:
        judged = with_verdicts(report, reference=REFERENCES[against], folder=folder)
    else:
        judged = against_report(report, load_results(Path(against)), rules=load_rules(folder))
    return Diff(experiment=report.experiment, profile=report.profile, against=against, rows=_rows(judged), notes=judged.notes)


def exit_code(found: Diff, fail_on: Collection[str] = ("differs", "missing")) -> int:
    """0, or the code of the first verdict of `fail_on` that occurs: missing 5, differs 3, inconclusive 4."""
    for verdict, code in EXIT_CODES:
        if verdict.lower() in fail_on and found.count(verdict):
            return code
    return 0


def _rows(report: Report) -> tuple[DiffRow, ...]:
    rows = []
    for table in report.tables:
        for row in table.rows:
            for cell in cells_of(row, table.columns):
                if cell.verdict == "PUBLISHED ONLY":
                    continue
                ours = "" if cell.ours is None else f"{cell.ours.value:.{max(decimals_of(cell), 1)}f}"
                if cell.ours is not None and cell.ours.standard_error is not None:
                    ours += f" ± {cell.ours.standard_error:.1f}"
                rows.append(
                    DiffRow(
                        table=table.name,
                        row=row.name,
                        label=row.label,
                        column=cell.column,
                        ours=ours,
                        reference=cell.published or "",
                        verdict=cell.verdict,
                        reason=cell.reason,
                    )
                )
    return tuple(rows)


def against_report(report: Report, other: Report, *, rules: VerdictRules) -> Report:
    """The report judged by another run of the same profile and protocol: the same computation, so the evaluation regime's budgets hold."""
    why = ""
    if (report.experiment, report.profile, report.protocol) != (other.experiment, other.profile, other.protocol):
        theirs, mine = (f"{one.experiment}, {one.profile}, {one.protocol}" for one in (other, report))
        why = f"the reference is of {theirs}, ours of {mine}"
    elif report.seeds != other.seeds:
        why = f"the reference has seeds {list(other.seeds)}, ours {list(report.seeds)}"
    known = {
        (table.name, row.name, cell.column): cell.ours
        for table in other.tables
        for row in table.rows
        for cell in row.cells
        if cell.ours is not None
    }
    tables = []
    for table in report.tables:
        rows = []
        for row in table.rows:
            cells = [
                _against_measurement(cell, known.get((table.name, row.name, cell.column)), why=why, rules=rules)
                for cell in cells_of(row, table.columns)
            ]
            rows.append(row.model_copy(update={"cells": tuple(cells)}))
        tables.append(table.model_copy(update={"rows": tuple(rows)}))
    return report.model_copy(update={"tables": tuple(tables), "notes": ()})


def _against_measurement(cell: Cell, theirs: Measurement | None, *, why: str, rules: VerdictRules) -> Cell:
    def judged(verdict: Verdict, reason: str) -> Cell:
        printed = None if theirs is None else f"{theirs.value:.4f}"
        return cell.model_copy(update={"published": printed, "reference": None, "verdict": verdict, "reason": reason})

    ours = cell.ours
    if ours is None:
        return judged("PUBLISHED ONLY", "") if theirs is None else judged("MISSING", cell.reason or "not measured")
    if theirs is None:
        return judged("NOT COMPARABLE", "the reference has no such number")
    if why or ours.n != theirs.n:
        return judged("NOT COMPARABLE", why or f"{ours.n} items, the reference has {theirs.n}")
    if ours.value == theirs.value:
        return judged("MATCH", "identical")
    if ours.correct is not None and theirs.correct is not None:
        apart, budget, unit = abs(ours.correct - theirs.correct), rules.noise_budget_items, "items"
    else:
        apart, budget, unit = abs(ours.value - theirs.value), rules.ties_budget, "points"
    return judged("MATCH" if apart <= budget else "DIFFERS", f"{apart:.3g} {unit} apart, budget {budget:g}")


def load_results(path: Path, *, row: str = "") -> Report:
    """A report from its JSON, or from the official RewardBench 2 shape (one model, six subsets as fractions).

    `row` says which row an official file is; without it the model's name must be one of the leaderboard's. Raises ResultsError.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ResultsError(f"{path}: a results file is one JSON object")
    if "tables" in data:
        try:
            return Report.model_validate_json(path.read_bytes())
        except ValidationError as error:
            lines = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
            raise ResultsError(f"{path}: {'; '.join(lines[:5])}") from error
    if set(SUBSETS) & set(data):
        return _official(data, path=path, row=row)
    raise ResultsError(f"{path}: neither a report of replicate (key tables) nor a RewardBench 2 result (keys {', '.join(SUBSETS)})")


def _official(data: Mapping[str, Any], *, path: Path, row: str) -> Report:
    published = load_published("table1")
    shares = {}
    for subset in SUBSETS:
        value = data.get(subset)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not -0.0101 <= value <= 1.0101:
            raise ResultsError(f"{path}: {subset}: {value!r} is no fraction")
        shares[subset] = float(value)
    name = row or _row_of_model(str(data.get("model", "")), published=published, path=path)
    percent = {"Overall": 100 * sum(shares.values()) / len(shares)} | {subset: 100 * share for subset, share in shares.items()}
    cells = tuple(
        Cell(
            column=column,
            ours=Measurement(value=round(percent[column], 10), n=published.n[column], per_seed=(round(percent[column], 10),)),
            published=published.printed(name, column),
            verdict="MISSING",
        )
        for column in published.columns
    )
    line = Row(name=name, label=published.row(name).label, size=published.row(name).size, origin="paper-ours", cells=cells)
    return Report(
        experiment="table1", title=published.title, profile="results file", protocol="as the file's", seeds=(0,), regime="evaluation",
        comparable=True, tables=(Table(name="table1", title=published.title, columns=published.columns, rows=(line,)),),
    )  # fmt: skip


def _row_of_model(model: str, *, published: PublishedTable, path: Path) -> str:
    names = {row.name for row in published.rows}
    for row in load_published("leaderboard").rows:
        if row.name in names and model and model in (row.model, row.model.partition("/")[2]):
            return row.name
    raise ResultsError(f"{path}: model {model!r} is no row of Table 1; say which row it is ({', '.join(sorted(names))})")
