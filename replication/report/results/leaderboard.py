"""Our results inside the captured leaderboard, each with its standard error over items and the ranks that the error allows."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from pydantic import Field

from replication.frozen import Frozen
from replication.report.cells import Report
from replication.report.claims.definitions import load_claims
from replication.report.claims.published import Numbers
from replication.report.published import load_published
from replication.report.statistics import binomial_error, normal_quantile
from replication.terminal.fitting import shortened

# Columns of a line before a model's name.
BEFORE_NAMES = 32


class RankingError(ValueError):
    """Results that have no place in the leaderboard; says why."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Place(Frozen):
    """One line of the ranking; percent and points."""

    rank: int
    best: int = Field(description="Best rank within the 95 % interval of the model's own score.")
    worst: int
    model: str
    ours: bool
    overall: float
    standard_error: float = Field(description="Over items; for the captured models binomial, Ties by its groups of prompts.")
    seeds: int = 1


def ranking(report: Report, *, folder: Path | None = None) -> tuple[Place, ...]:
    """Our measured rows among the captured ones, best first.

    Raises RankingError: 6 where the scale, data or protocol differ from the leaderboard's, 5 where nothing was measured.
    """
    if not report.comparable:
        raise RankingError(f"not ranked: {report.why_not_comparable}", exit_code=6)
    board = load_published("leaderboard", folder)
    numbers = Numbers(table=board, ties_groups=load_claims(folder).ties_groups, alpha=0.05, defects={})
    entries = [(row.model or row.label, False, numbers.overall(row.name), numbers.error(row.name), 1) for row in board.rows]
    entries += _own(report, board.n["Overall"], ties_groups=numbers.ties_groups)
    if not any(ours for _, ours, *_ in entries):
        lacking = f"{report.experiment}: no Overall of ours over all {board.n['Overall']:,} items"
        problem = f"{lacking}; run: {report.command or f'replicate {report.experiment}'}"
        raise RankingError(problem, exit_code=5)
    half = normal_quantile(0.975)
    scores = [overall for _, _, overall, _, _ in entries]
    places = [
        Place(
            rank=_rank(scores, overall), best=_rank(scores, overall + half * error), worst=_rank(scores, overall - half * error, last=True),
            model=model, ours=ours, overall=overall, standard_error=error, seeds=seeds,
        )
        for model, ours, overall, error, seeds in entries
    ]  # fmt: skip
    return tuple(sorted(places, key=lambda place: (place.rank, place.model)))


def _own(report: Report, items: int, *, ties_groups: int) -> list[tuple[str, bool, float, float, int]]:
    found = []
    for row in report.tables[0].rows if report.tables else ():
        cells = {cell.column: cell.ours for cell in row.cells if cell.ours is not None}
        ours = cells.pop("Overall", None)
        if ours is not None and ours.n == items:
            errors = [binomial_error(one.value, ties_groups if name == "Ties" else one.n) for name, one in cells.items()]
            error = ours.standard_error if ours.standard_error is not None else math.hypot(*errors) / len(errors)
            how = "scored by us" if report.regime == "evaluation" else f"ours, {report.profile}, {report.protocol}"
            found.append((f"{row.label} ({how})", True, ours.value, error, max(1, len(ours.per_seed))))
    return found


def _rank(scores: list[float], value: float, *, last: bool = False) -> int:
    """1 plus the number of scores above the value; with `last` the models that tie with it count too, but for itself."""
    return max(1, sum(score >= value for score in scores)) if last else 1 + sum(score > value for score in scores)


def ranking_text(places: tuple[Place, ...], *, width: int) -> str:
    """Text of at most `width` columns, names shortened between words; ours carry an arrow."""
    lines = [f"{'rank':>5}  {'95 %':<9}{'Overall':>8}  {'± se':<8}model"]
    for place in places:
        mark = "-> " if place.ours else ""
        error = f"± {place.standard_error:.1f}"
        name = shortened(f"{mark}{place.model}", width - BEFORE_NAMES)
        lines.append(f"{place.rank:>5}  {f'{place.best}-{place.worst}':<9}{place.overall:>8.2f}  {error:<8}{name}")
    captured = sum(not place.ours for place in places)
    note = (
        f"Among the {captured} captured models that this project has on file, not the whole leaderboard. Errors are over items; "
        "ranks of 95 % are those within 1.96 errors of a model's own score, the others held fixed."
    )
    return "\n".join([*lines, "", *textwrap.wrap(note, width=width)]) + "\n"
