"""The paper's tables against its own text, against the leaderboard that they were copied from, and against the released checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from replication.report.audit.findings import Finding
from replication.report.counts import interval_of, mean_interval, nearest_difference, overlap
from replication.report.published import PublishedRow, PublishedTable, Superlative, countable_columns

PREPRINT_DATE = "2025-08-12"


def text_findings(table: PublishedTable, board: PublishedTable) -> Iterator[Finding]:
    """Numbers and superlatives of the running text, and what the table says of its own defaults and trends."""
    for statement in table.statements:
        printed = table.row(statement.row).cells[statement.column]
        if printed != statement.printed:
            yield Finding(
                table=table.name, row=statement.row, column=statement.column, kind="statement", severity="defect", printed=printed,
                detail=f"the text ({statement.place}) says {statement.printed}",
            )  # fmt: skip
    for superlative in table.superlatives:
        yield from _superlative(table, board, superlative)
    yield from _default_rows(table)
    yield from _depth(table)


def _superlative(table: PublishedTable, board: PublishedTable, claim: Superlative) -> Iterator[Finding]:
    row = table.row(claim.row)
    value = Decimal(row.cells[claim.column])
    if claim.scope != "board":
        rivals = [other for other in table.rows if claim.scope == "table" or other.group == row.group]
        above = [other for other in rivals if Decimal(other.cells[claim.column]) > value]
        if above:
            yield _exceeded(table, claim, value, [(other.label, other.cells[claim.column]) for other in above], severity="defect")
    said_of_all = {(other.row, other.column) for other in table.superlatives if other.scope == "board"}
    if claim.scope == "group" or (claim.scope == "table" and (claim.row, claim.column) in said_of_all):
        return
    earlier = [other for other in board.rows if other.dated and other.dated < PREPRINT_DATE and other.name != claim.row]
    higher = [(other.model, board.printed(other.name, claim.column) or "") for other in earlier]
    higher = sorted(((model, printed) for model, printed in higher if Decimal(printed) > value), key=lambda pair: -Decimal(pair[1]))
    in_table = {other.model for other in table.rows}
    outside = [pair for pair in higher if pair[0] not in in_table]
    if outside and table.name == "table1":
        yield _exceeded(table, claim, value, outside, severity="doubt" if claim.scope == "board" else "note")


def _exceeded(table: PublishedTable, claim: Superlative, value: Decimal, above: list[tuple[str, str]], *, severity: str) -> Finding:
    names = ", ".join(f"{name} {printed}" for name, printed in above)
    if claim.scope == "board":
        head = f"said to be the best of all models; {len(above)} that were out before the preprint, absent from the table, are above it"
    else:
        head = f"marked best; true of the table only, since the leaderboard has higher ones from before the preprint ({len(above)} on file)"
        head = "said to be the best, but the table itself has more" if severity == "defect" else head
    return Finding.model_validate(
        {"table": table.name, "row": claim.row, "column": claim.column, "kind": "superlative", "severity": severity,
         "printed": str(value), "detail": f"{head}: {names} ({claim.place})"}
    )  # fmt: skip


def _default_rows(table: PublishedTable) -> Iterator[Finding]:
    for row in table.rows:
        block = [Decimal(other.cells["Overall"]) for other in table.rows if other.group == row.group]
        if "(SARM)" in row.label and Decimal(row.cells["Overall"]) == min(block) and len(block) > 1:
            yield Finding(
                table=table.name, row=row.name, column="Overall", kind="trend", severity="note", printed=row.cells["Overall"],
                detail=f"the chosen default has the lowest Overall of its block (spread {max(block) - min(block)} points)",
            )  # fmt: skip


def _depth(table: PublishedTable) -> Iterator[Finding]:
    layers = [row for row in table.rows if row.name.startswith("layer-")]
    for shallow, deep in pairwise(layers):
        if Decimal(deep.cells["Overall"]) < Decimal(shallow.cells["Overall"]):
            yield Finding(
                table=table.name, row=deep.name, column="Overall", kind="trend", severity="note", printed=deep.cells["Overall"],
                detail=f"below {shallow.label} ({shallow.cells['Overall']}), so the gain with depth that the text describes ends there",
            )  # fmt: skip


def board_findings(table: PublishedTable, board: PublishedTable) -> Iterator[Finding]:
    """Each copied baseline against the leaderboard capture, and names that could mean another model of the board."""
    for row in table.rows:
        if row.origin != "paper-baseline":
            continue
        for column in table.columns:
            yield from _copied_cell(table, board, row, column)
        yield from _double_rounding(table, board, row)
        yield from _identity(table, board, row)


def _copied_cell(table: PublishedTable, board: PublishedTable, row: PublishedRow, column: str) -> Iterator[Finding]:
    captured = board.printed(row.name, column) or ""
    if not table.interval(row.name, column).holds(Fraction(captured)):
        yield Finding(
            table=table.name, row=row.name, column=column, kind="leaderboard", severity="doubt", printed=row.cells[column],
            detail=f"the leaderboard capture says {captured}, which does not round to it",
        )  # fmt: skip


def _double_rounding(table: PublishedTable, board: PublishedTable, row: PublishedRow) -> Iterator[Finding]:
    columns = [column for column in table.columns if column != "Overall"]
    mean = mean_interval([board.interval(row.name, column) for column in columns])
    printed = row.cells["Overall"]
    cited = row.cited.get("Overall", printed)
    if overlap(mean, table.interval(row.name, "Overall")) and cited == printed:
        return
    once = cited if cited != printed else f"{float((mean.low + mean.high) / 2):.{table.decimals}f}"
    source = f"; the RewardBench 2 paper prints {cited}" if cited != printed else ""
    yield Finding(
        table=table.name, row=row.name, column="Overall", kind="double-rounding", severity="doubt", printed=printed,
        detail=f"the captured subsets average {float(mean.low):.3f} to {float(mean.high):.3f}{source}; "
        f"the board's {board.printed(row.name, 'Overall')} was rounded a second time", suspected_value=once,
    )  # fmt: skip


def _identity(table: PublishedTable, board: PublishedTable, row: PublishedRow) -> Iterator[Finding]:
    spoken = row.label.lower().replace(" ", "-")
    for other in board.rows:
        if other.model != row.model and other.model.partition("/")[2].lower() == spoken:
            overall = board.printed(other.name, "Overall")
            yield Finding(
                table=table.name, row=row.name, column="Overall", kind="identity", severity="note", printed=row.cells["Overall"],
                detail=f"the numbers are those of {row.model}; the board also lists {other.model} at {overall}",
            )  # fmt: skip


def release_findings(table: PublishedTable, board: PublishedTable, released: PublishedTable) -> Iterator[Finding]:
    """The paper's own row against the checkpoint that was released under its name."""
    name = "sarm-4b"
    for column in released.columns:
        if not overlap(released.interval(name, column), board.interval(name, column)):
            yield Finding(
                table="released", row=name, column=column, kind="leaderboard", severity="doubt", printed=released.row(name).cells[column],
                detail=f"the leaderboard capture says {board.printed(name, column)}",
            )  # fmt: skip
    apart = [column for column in table.columns if not overlap(table.interval(name, column), board.interval(name, column))]
    if not apart:
        return
    items = [
        f"{column} {float(nearest_difference(table.counts(name, column), board.counts(name, column))):g}"
        for column in countable_columns(table)
        if column in apart
    ]
    ties = interval_of(table.row(name).cells["Ties"], rounding=table.rounding).distance(board.interval(name, "Ties"))
    yield Finding(
        table=table.name, row=name, column="*", kind="own-model", severity="doubt", printed="",
        detail=f"the released checkpoint's entry on the board differs in {len(apart)} of {len(table.columns)} cells, by items: "
        f"{', '.join(items)} (Ties: {float(ties):.2f} points): numerics, or another checkpoint",
    )  # fmt: skip
