"""Our results against a reference: the paper, the leaderboard, the released checkpoint's row, or another results file."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from replication.frozen import Frozen
from replication.report.cells import Cell, Input, Measurement, Report, Row, Table, Verdict
from replication.report.provenance.circumstances import computed_otherwise
from replication.report.published import PublishedTable, load_published
from replication.report.render.view import cells_of, decimals_of
from replication.report.results.files import OWN_MODEL
from replication.report.results.model_facts import MODELS, UNKNOWN
from replication.report.results.reading import INTEGRITY, MISSING, USAGE, ResultsError, read_object, read_results, validated
from replication.report.statistics import binomial_error, sidak_z
from replication.report.verdicts.report import with_verdicts
from replication.report.verdicts.rules import VerdictRules, load_rules

REFERENCES: Mapping[str, str] = {"leaderboard": "leaderboard", "release": "released"}
SUBSETS = ("Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties")
SEVERITY: tuple[Verdict, ...] = (
    "DIFFERS", "MISSING", "INCONCLUSIVE", "DEFECTIVE", "NOT COMPARABLE", "CONSISTENT", "EQUIVALENT", "MATCH", "PUBLISHED ONLY",
)  # fmt: skip
# In the documented order of precedence: what is missing comes before what differs.
REGIMES = {"retrained": "trained anew", "evaluation": "published and only evaluated"}
EXIT_CODES: tuple[tuple[Verdict, int], ...] = (("MISSING", 5), ("DIFFERS", 3), ("INCONCLUSIVE", 4))


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
    no_verdict: str = Field(default="", description="Why not one cell could be compared with another results file; empty where one could.")

    def count(self, verdict: Verdict) -> int:
        """How many cells have a verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def worst_first(self) -> tuple[DiffRow, ...]:
        """The rows by severity of their verdict, else in order."""
        return tuple(sorted(self.rows, key=lambda row: SEVERITY.index(row.verdict)))


def diff_of(report: Report, against: str, *, folder: Path | None = None, row: str = "") -> Diff:
    """The verdicts of a report against `paper`, `leaderboard`, `release` or the path of another results file.

    With `row` the cells of that row alone, judged among all: how many cells there are decides how far apart one may be. What such a file
    alone has is MISSING. Raises ResultsError for a file that is no results file and for a row that no table of ours has, PublishedError
    and VerdictError as the verdicts do.
    """
    if row:
        _refuse_unknown_row(report, row)
    more: tuple[DiffRow, ...] = ()
    notes: tuple[str, ...] = ()
    if against == "paper":
        judged = with_verdicts(report, folder=folder)
    elif against in REFERENCES:
        judged = with_verdicts(report, reference=REFERENCES[against], folder=folder)
    else:
        other = load_results(Path(against))
        judged = against_report(report, other, rules=load_rules(folder))
        facts, notes = model_differences(report, other)
        notes += () if _why_not_the_same(report, other) else computed_otherwise(report, other)
        more = (*facts, *_absent(report, other))
    cells, more = (tuple(one for one in rows if not row or one.row == row) for rows in (_rows(judged), more))
    no_verdict = _nothing_published(cells) if against in ("paper", *REFERENCES) else _nothing_compared(cells, more)
    return Diff(
        experiment=report.experiment, profile=report.profile, against=against, rows=(*cells, *more), notes=(*judged.notes, *notes),
        no_verdict=no_verdict,
    )  # fmt: skip


def _absent(report: Report, other: Report) -> tuple[DiffRow, ...]:
    """What a results file of the same computation has and ours has no cell for."""
    if _why_not_the_same(report, other):
        return ()
    ours = {(table.name, row.name, column) for table in report.tables for row in table.rows for column in table.columns}
    return tuple(
        DiffRow(
            table=table.name, row=row.name, label=row.label, column=cell.column, ours="", reference=f"{cell.ours.value:.4f}",
            verdict="MISSING", reason="the reference has this number, ours has no such cell",
        )
        for table in other.tables
        for row in table.rows
        for cell in row.cells
        if cell.ours is not None and (table.name, row.name, cell.column) not in ours
    )


def _nothing_published(cells: Sequence[DiffRow]) -> str:
    """The same of published numbers: some figures have none, nor have rows that are published alone a number of ours."""
    return "" if cells else "nothing could be compared: no number of ours stands beside a published one"


def _nothing_compared(cells: Sequence[DiffRow], more: Sequence[DiffRow]) -> str:
    """Why no cell at all could be held against another run: a diff that says nothing must not pass for one that found nothing."""
    if any(one.verdict != "NOT COMPARABLE" for one in (*cells, *(one for one in more if one.verdict == "MISSING"))):
        return ""
    return f"nothing could be compared: {cells[0].reason if cells else 'there is no number'}"


def _refuse_unknown_row(report: Report, name: str) -> None:
    if all(row.name != name for table in report.tables for row in table.rows):
        names = sorted({row.name for table in report.tables for row in table.rows if row.origin != "paper-baseline"})
        raise ResultsError(f"--row {name}: no such row in {report.experiment} (rows: {', '.join(names)})", exit_code=USAGE)


def exit_code(found: Diff, fail_on: Collection[str] = ("differs", "missing")) -> int:
    """0, or the code of the first verdict of `fail_on` that occurs: missing 5, differs 3, inconclusive 4; 6 where nothing was compared."""
    if found.no_verdict:
        return INTEGRITY
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
    """The report judged by another run of the same profile, protocol and seeds.

    Such runs are the same computation: identical on one machine, apart by last digits on another. Training carries these on, so retrained
    results have a budget from `machine_dispersion`, Ties from its own: the machine alone makes any cell of a diff DIFFER with chance
    `machine_false_alarms` at most; evaluations of the same weights keep the noise budget. Raises ResultsError for different data.
    """
    _refuse_other_data(report, other)
    why = _why_not_the_same(report, other)
    known = {
        (table.name, row.name, cell.column): cell.ours
        for table in other.tables
        for row in table.rows
        for cell in row.cells
        if cell.ours is not None
    }
    compared = sum(
        cell.ours is not None and (table.name, row.name, cell.column) in known
        for table in report.tables
        for row in table.rows
        for cell in row.cells
    )
    z = sidak_z(compared, alpha=rules.machine_false_alarms) if compared and report.regime == "retrained" else None
    tables = []
    for table in report.tables:
        rows = []
        for row in table.rows:
            cells = [
                _against_measurement(cell, known.get((table.name, row.name, cell.column)), why=why, rules=rules, z=z)
                for cell in cells_of(row, table.columns)
            ]
            rows.append(row.model_copy(update={"cells": tuple(cells)}))
        tables.append(table.model_copy(update={"rows": tuple(rows)}))
    return report.model_copy(update={"tables": tuple(tables), "notes": ()})


def _why_not_the_same(report: Report, other: Report) -> str:
    """Why two reports are of different computations; empty where they are of one."""
    if (report.experiment, report.profile, report.protocol) != (other.experiment, other.profile, other.protocol):
        theirs, mine = (f"{one.experiment}, {one.profile}, {one.protocol}" for one in (other, report))
        return f"the reference is of {theirs}, ours of {mine}"
    if report.regime != other.regime:
        return f"the reference is of models that were {REGIMES[other.regime]}, ours of models that were {REGIMES[report.regime]}"
    return f"the reference has seeds {list(other.seeds)}, ours {list(report.seeds)}" if report.seeds != other.seeds else ""


def model_differences(report: Report, other: Report) -> tuple[tuple[DiffRow, ...], tuple[str, ...]]:
    """What the models of two runs of the same computation are, compared exactly: a row for each fact of a model that both note.

    Of the models in our tables; a note where one run alone says what they are.
    """
    if _why_not_the_same(report, other):
        return (), ()
    ours, theirs = _models(report), _models(other)
    shown = {row.name for table in report.tables for row in table.rows}
    rows = []
    for model in (one for one in ours if one in theirs and one in shown):
        for column, text in ours[model].items():
            known = theirs[model].get(column, UNKNOWN)
            verdict: Verdict = "MATCH" if text == known else "DIFFERS"
            reason = "the same model" if text == known else f"another model: {column} is {text}, the reference has {known}"
            rows.append(
                DiffRow(table=MODELS, row=model, label=model, column=column, ours=text, reference=known, verdict=verdict, reason=reason)
            )
    alone = sorted((ours.keys() ^ theirs.keys()) & shown)
    return tuple(rows), (f"what these models are (blocks, parameters, ...) is noted in one run alone: {', '.join(alone)}",) if alone else ()


def _models(report: Report) -> dict[str, dict[str, str]]:
    blocks = [one for one in report.listings if one.name == MODELS]
    return {row[0]: dict(zip(one.columns[1:], row[1:], strict=True)) for one in blocks for row in one.rows}


def _refuse_other_data(report: Report, other: Report) -> None:
    def stamps(inputs: tuple[Input, ...]) -> dict[tuple[str, str], Input]:
        return {(one.kind, one.id): one for one in inputs if one.kind != "model"}

    theirs = stamps(other.inputs)
    for place, ours in stamps(report.inputs).items():
        known = theirs.get(place)
        if known is None:
            continue
        if known.revision != ours.revision:
            raise ResultsError(f"{ours.kind} {ours.id}: revision {ours.revision[:12]}, the reference has {known.revision[:12]}; no verdict")
        if ours.kind == "benchmark" and known.sha256 and ours.sha256 and known.sha256 != ours.sha256:
            raise ResultsError(f"benchmark {ours.id}: its items differ from those of the reference (SHA-256); no verdict")


def _budget(ours: Measurement, theirs: Measurement, *, floor: float, scale: float, dispersion: float, z: float | None) -> float:
    """How far apart two runs may be, in points times `scale`: at least `floor`, and that alone for the same weights (`z` is None)."""
    if z is None:
        return floor
    # The mean of both errors, so that the budget is the same whichever run is called the reference.
    error = math.fsum(machine_error(one) for one in (ours, theirs)) / 2
    return max(floor, z * math.sqrt(2 * dispersion) * scale * error)


def machine_error(one: Measurement) -> float:
    """The root of what a machine dispersion is a share of, in points: a metric's standard error over items, else sqrt(p(1-p)/n).

    Each seed's run differs on another machine in its own way, so that the mean of S seeds does by an S-th of the variance.
    """
    error = one.standard_error if one.standard_error is not None else binomial_error(one.value, one.n)
    return error / math.sqrt(max(1, len(one.per_seed)))


def _against_measurement(cell: Cell, theirs: Measurement | None, *, why: str, rules: VerdictRules, z: float | None) -> Cell:
    def judged(verdict: Verdict, reason: str) -> Cell:
        printed = None if theirs is None else f"{theirs.value:.4f}"
        return cell.model_copy(update={"published": printed, "reference": None, "verdict": verdict, "reason": reason})

    ours = cell.ours
    if ours is None:
        return judged("PUBLISHED ONLY", "") if theirs is None else judged("MISSING", cell.reason or "not measured")
    if theirs is None:
        return judged("NOT COMPARABLE", "the reference has no such number")
    if why or ours.n != theirs.n:
        fewer = not why and ours.n < theirs.n
        return judged("MISSING" if fewer else "NOT COMPARABLE", why or f"{ours.n} items, the reference has {theirs.n}")
    if ours.value == theirs.value:
        return judged("MATCH", "identical")
    counted = ours.correct is not None and theirs.correct is not None
    scale, floor = (ours.n / 100, rules.noise_budget_items) if counted else (1.0, rules.ties_budget)
    key, dispersion = rules.machine_dispersion_of(cell.column)
    budget = _budget(ours, theirs, floor=floor, scale=scale, dispersion=dispersion, z=z)
    apart = abs((ours.correct or 0.0) - (theirs.correct or 0.0)) if counted else abs(ours.value - theirs.value)
    reason = f"{apart:.3g} {'items' if counted else 'points'} apart, budget {budget:.3g}"
    if z is not None:
        reason += f" ({key} {dispersion:g}, z {z:.2f})"
    return judged("MATCH" if apart <= budget else "DIFFERS", reason)


def load_results(path: Path, *, row: str = "") -> Report:
    """A report from results.json, a rendered report's JSON, or the official RewardBench 2 shape (one model, six subsets as fractions).

    `row` says which row an official file is; without it the model's name must be one of the leaderboard's. Raises ResultsError.
    """
    data = read_object(path)
    if "schema_version" in data:
        return read_results(path).report
    if "tables" in data:
        return validated(Report, data, path)
    if set(SUBSETS) & set(data):
        return _official(data, path=path, row=row)
    raise ResultsError(
        f"{path}: neither results of replicate (keys schema_version or tables) nor a RewardBench 2 result (keys {', '.join(SUBSETS)})"
    )


def _official(data: Mapping[str, Any], *, path: Path, row: str) -> Report:
    published = load_published("table1")
    shares = {}
    for subset in SUBSETS:
        if subset not in data:
            raise ResultsError(f"{path}: {subset}: not there; a RewardBench 2 result has six subsets", exit_code=MISSING)
        value = data[subset]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not -0.0101 <= value <= 1.0101:
            raise ResultsError(f"{path}: {subset}: {value!r} is no fraction", exit_code=USAGE)
        shares[subset] = float(value)
    origin, _, rest = str(data.get("model", "")).partition("/")
    scale, _, own = rest.partition("/") if origin == OWN_MODEL else ("", "", "")
    name = row or own or _row_of_model(str(data.get("model", "")), published=published, path=path)
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
        experiment="table1", title=published.title, profile="results file", protocol="as the file's", seeds=(0,),
        regime="retrained" if own else "evaluation", comparable=scale in ("", "paper"),
        why_not_comparable="" if scale in ("", "paper") else f"a model of profile {scale}, which is another scale than the reference's",
        tables=(Table(name="table1", title=published.title, columns=published.columns, rows=(line,)),),
    )  # fmt: skip


def _row_of_model(model: str, *, published: PublishedTable, path: Path) -> str:
    names = {row.name for row in published.rows}
    for row in load_published("leaderboard").rows:
        if row.name in names and model and model in (row.model, row.model.partition("/")[2]):
            return row.name
    valid = ", ".join(sorted(names))
    raise ResultsError(f"{path}: model {model!r} is no row of Table 1; say which row it is: --row NAME ({valid})", exit_code=USAGE)
