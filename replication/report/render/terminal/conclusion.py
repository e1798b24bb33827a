"""What a report found, in two sentences: how the verdicts are spread, and what was measured. Nothing is said that no number says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from replication.report.cells import Cell, Listing, Report, Table
from replication.report.render.view import MEANING, decimals_of

MOST_NAMED = 4


def conclusion(report: Report) -> tuple[str, ...]:
    """Two sentences, or one where nothing was measured."""
    ours = [cell for table in report.tables for row in table.rows if row.origin != "paper-baseline" for cell in row.cells]
    measured = [cell for cell in ours if cell.ours is not None]
    if not report.tables:
        return _of_listings(report)
    if not measured:
        return (f"Nothing of {report.experiment} was measured yet.",)
    return (_verdicts(report, ours, measured), *_numbers(report.tables))


def _verdicts(report: Report, ours: Sequence[Cell], measured: Sequence[Cell]) -> str:
    gaps = sum(cell.ours is None and cell.verdict == "MISSING" for cell in ours)
    lacking = f", {gaps} not yet" if gaps else ""
    if not report.comparable:
        return (
            f"{len(measured)} cells were measured{lacking}; none of them confirms or refutes the paper, whose scale, data or protocol are "
            "others."
        )
    compared = [cell for cell in ours if cell.published is not None]
    counts = Counter(cell.verdict for cell in compared)
    spread = ", ".join(f"{counts[verdict]} {verdict}" for verdict in MEANING if counts[verdict])
    return f"Of {len(compared)} cells that the paper prints too: {spread}; {len(measured)} cells were measured{lacking}."


def _numbers(tables: Sequence[Table]) -> tuple[str, ...]:
    """The first column of the first table with numbers of ours, row by row."""
    for table in tables:
        named = [(row, row.cells[0]) for row in table.rows if row.cells and row.cells[0].ours is not None]
        # Controls come last: a reader looks for the models first.
        named.sort(key=lambda one: one[0].origin == "control")
        said = [_number(row.label, cell) for row, cell in named[:MOST_NAMED]]
        if said:
            more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
            return (f"{table.title}, {named[0][1].column}, percent: {', '.join(said)}{more}.",)
    return ()


def _number(label: str, cell: Cell) -> str:
    value = cell.ours.value if cell.ours is not None else 0.0
    return f"{label} {value:.{decimals_of(cell)}f}" + (f" (paper {cell.published})" if cell.published else "")


def _of_listings(report: Report) -> tuple[str, ...]:
    """What checks, explained latents or hours say; each listing that has such a column gives a part of the sentence."""
    checked = [_outcomes(one) for one in report.listings if "outcome" in one.columns]
    explained = [_explained(one) for one in report.listings if {"latents", "explained"} <= set(one.columns)]
    hours = [_hours(one) for one in report.listings if "ours, hours" in one.columns]
    parts = [part for part in (*checked, *explained, *hours) if part]
    if not parts:
        return (f"Nothing of {report.experiment} was measured yet.",)
    scale = "" if report.comparable else "None of this confirms or refutes the paper, whose scale, data or protocol are others."
    return (f"{'; '.join(parts)}.", *([scale] if scale else []))


def _column(listing: Listing, name: str) -> list[str]:
    place = listing.columns.index(name)
    return [row[place] for row in listing.rows]


def _outcomes(listing: Listing) -> str:
    counts = Counter(_column(listing, "outcome"))
    return f"{listing.title}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}" if counts else ""


def _explained(listing: Listing) -> str:
    latents = [int(text) for text in _column(listing, "latents") if text.isdecimal()]
    explained = [int(text) for text in _column(listing, "explained") if text.isdecimal()]
    return f"{listing.title}: {sum(explained)} of {sum(latents)} latents have an explanation" if sum(latents) else ""


def _hours(listing: Listing) -> str:
    stages = zip(listing.rows, _column(listing, "ours, hours"), strict=True)
    said = [f"{row[0]} {hours}" for row, hours in stages if hours.replace(".", "", 1).isdecimal()]
    return f"Hours of ours: {', '.join(said)}" if said else ""
