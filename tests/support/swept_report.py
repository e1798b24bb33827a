"""Invented reports in the shape of the paper's tables: numbers near the printed ones, three seeds, every label as it would be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from replication.report.cells import Cell, Measurement, Provenance, Report, Row, Table, Verdict
from replication.report.published import load_published

VERDICTS: tuple[Verdict, ...] = ("EQUIVALENT", "CONSISTENT", "INCONCLUSIVE", "DIFFERS")


def invented(name: str, *, seeds: Sequence[int] = (0, 1, 2), rows: int = 0, **changed: Any) -> Report:
    """A report of a published table in which the first `rows` rows (0: all) were measured, each seed apart from the printed value."""
    published, draw = load_published(name), random.Random(name)
    found = []
    for place, row in enumerate(published.rows):
        measured = not rows or place < rows
        cells = [_cell(published, row.name, column, seeds if measured else (), draw) for column in published.columns]
        found.append(Row(name=row.name, label=row.label, size=row.size, group=row.group, origin="paper-ours", cells=tuple(cells)))
    table = Table(name=name, title=published.title, columns=published.columns, rows=tuple(found))
    provenance = Provenance(kind="score_benchmark", key="0123456789ab", label="sarm-4b on RewardBench 2", seconds=12.34, code="abc1234")
    facts = {"experiment": name, "title": published.title, "profile": "paper", "protocol": "paper", "comparable": True}
    return Report(**facts | {"seeds": tuple(seeds), "tables": (table,), "provenance": (provenance,)} | changed)


def _cell(published: Any, row: str, column: str, seeds: Sequence[int], draw: random.Random) -> Cell:
    printed = published.printed(row, column)
    if not seeds:
        return Cell(column=column, published=printed, verdict="PUBLISHED ONLY")
    values = tuple(min(max(float(printed or 50.0) + draw.gauss(0.0, 1.5), 0.0), 100.0) for _ in seeds)
    n = published.n.get(column, 100)
    ours = Measurement(
        value=sum(values) / len(values), n=n, correct=None if column in ("Overall", "Ties") else sum(values) / len(values) * n / 100,
        standard_error=1.2, per_seed=values if len(values) > 1 else (),
        artifacts=tuple(f"score_benchmark/{seed:012x}" for seed in seeds),
    )  # fmt: skip
    return Cell(column=column, ours=ours, published=printed, verdict=draw.choice(VERDICTS), reason=f"{column} <as> it came")
