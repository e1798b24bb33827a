"""The paper's claims, evaluated from its own published numbers, with the power of that comparison.

Published numbers know only item noise (one run a row), so they alone never support a claim that needs seeds: the ceiling is DIRECTION ONLY.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from replication.report.audit.consistency import defective_cells
from replication.report.audit.references import PREPRINT_DATE
from replication.report.claims.definitions import OWN_RESULTS_ONLY, Claim, ClaimFile, ClaimResult, Effect, Outcome, load_claims
from replication.report.published import PublishedTable, load_published
from replication.report.statistics import binomial_error, holm, normal_power, normal_quantile, normal_tail, range_bound, range_tail

ASSUMED_CORRELATION = 0.5


class Found(NamedTuple):
    """The evaluation of one claim before the adjustment over all."""

    outcome: Outcome
    detail: str
    p_value: float | None = None
    power_unpaired: float | None = None
    power_paired: float | None = None
    effects: tuple[Effect, ...] = ()


class Numbers(NamedTuple):
    """A published table with what the tests need."""

    table: PublishedTable
    ties_groups: int
    alpha: float
    defects: Mapping[tuple[str, str], str]

    def overall(self, row: str) -> float:
        """Percent."""
        return float(self.table.printed(row, "Overall") or "nan")

    def error(self, row: str) -> float:
        """The standard error of Overall over items, in points: subsets are independent, Ties counts its groups of prompts."""
        columns = [column for column in self.table.columns if column != "Overall"]
        errors = [
            binomial_error(float(self.table.printed(row, column) or "nan"), self.ties_groups if column == "Ties" else self.table.n[column])
            for column in columns
        ]
        return math.hypot(*errors) / len(columns)

    def error_of_difference(self, left: str, right: str, *, correlation: float = 0.0) -> float:
        """Points; the correlation is that of the two models' item scores."""
        a, b = self.error(left), self.error(right)
        return math.sqrt(a * a + b * b - 2 * correlation * a * b)


def published_claims(folder: Path | None = None) -> tuple[ClaimResult, ...]:
    """Every claim on file, from published numbers alone, Holm-adjusted over those that were tested. Raises PublishedError."""
    file = load_claims(folder)
    found = {claim.id: _evaluate(claim, file, folder) for claim in file.claims}
    tested = [name for name, one in found.items() if one.p_value is not None]
    adjusted = dict(zip(tested, holm([found[name].p_value or 0.0 for name in tested]), strict=True))
    return tuple(_result(claim, found[claim.id], p_holm=adjusted.get(claim.id), alpha=file.alpha) for claim in file.claims)


def across_protocols(results: Mapping[str, ClaimResult]) -> ClaimResult:
    """One result of the same claim under several protocols: SPEC-DEPENDENT where they differ. Raises ValueError for none."""
    first = next(iter(results.values()), None)
    if first is None:
        raise ValueError("no protocol has a result for this claim")
    # What a protocol's other claims and its number of seeds take from a verdict is nothing that the protocol says.
    alone = {protocol: one.alone or one.outcome for protocol, one in results.items()}
    if len(set(alone.values())) == 1:
        return first
    detail = "; ".join(f"{protocol}: {outcome}" for protocol, outcome in alone.items())
    if any(outcome != results[protocol].outcome for protocol, outcome in alone.items()):
        detail += "; each as it stands alone, before all claims and the number of seeds count"
    protocols = ", ".join(results)
    changed = {"outcome": "SPEC-DEPENDENT", "alone": None, "detail": detail, "p_value": None, "p_holm": None, "protocol": protocols}
    return first.model_copy(update=changed)


def _result(claim: Claim, found: Found, *, p_holm: float | None, alpha: float) -> ClaimResult:
    outcome, detail = found.outcome, found.detail
    if outcome == "SUPPORTED" and p_holm is not None and p_holm > alpha:
        outcome, detail = "DIRECTION ONLY", f"{detail}; not among all claims (Holm p {p_holm:.3f})"
    if outcome == "SUPPORTED" and claim.seeds > 1:
        outcome, detail = (
            "DIRECTION ONLY",
            f"{detail}; beyond item noise, but one run a row says nothing of seeds ({claim.seeds} are needed)",
        )
    return ClaimResult(
        id=claim.id, says=claim.says, place=claim.place, test=claim.test, outcome=outcome,
        basis="none" if outcome == "NOT TESTED" else "published numbers", detail=detail, p_value=found.p_value, p_holm=p_holm,
        power_unpaired=found.power_unpaired, power_paired=found.power_paired, effects=found.effects,
    )  # fmt: skip


def _evaluate(claim: Claim, file: ClaimFile, folder: Path | None) -> Found:
    if claim.kind in OWN_RESULTS_ONLY:
        return Found(outcome="NOT TESTED", detail="no published number bears on it; it needs our own results")
    table = load_published(claim.table, folder)
    numbers = Numbers(table=table, ties_groups=file.ties_groups, alpha=file.alpha, defects=defective_cells(table))
    if claim.kind == "best-of-board":
        return _best_of_board(claim, numbers, load_published("leaderboard", folder))
    tests = {
        "best-of-table": _best_of_table,
        "non-inferior": _non_inferior,
        "difference": _difference,
        "steps": _steps,
        "plateau": _plateau,
        "range": _range,
    }
    return tests[claim.kind](claim, numbers)


def _powers(numbers: Numbers, left: str, right: str, *, effect: float, sides: int = 1) -> tuple[float, float]:
    unpaired = numbers.error_of_difference(left, right)
    paired = numbers.error_of_difference(left, right, correlation=ASSUMED_CORRELATION)
    return tuple(normal_power(effect / error, alpha=numbers.alpha / sides) for error in (unpaired, paired))  # type: ignore[return-value]


def _effect(
    label: str, estimate: float, *, half: float, above: float | None = None, below: float | None = None
) -> Effect:
    return Effect(label=label, estimate=estimate, low=estimate - half, high=estimate + half, above=above, below=below)


def _best_of_table(claim: Claim, numbers: Numbers) -> Found:
    others = [row.name for row in numbers.table.rows if row.name != claim.row]
    ours = numbers.overall(claim.row)
    p_values = {name: normal_tail((ours - numbers.overall(name)) / numbers.error_of_difference(claim.row, name)) for name in others}
    nearest = max(p_values, key=lambda name: p_values[name])
    effect = ours - numbers.overall(nearest)
    unpaired, paired = _powers(numbers, claim.row, nearest, effect=effect)
    outcome: Outcome = "CONTRADICTED" if effect <= 0 else "DIRECTION ONLY"
    if max(p_values.values()) <= numbers.alpha:
        outcome = "SUPPORTED"
    open_ = sum(p > numbers.alpha for p in p_values.values())
    detail = f"{effect:+.1f} points over {numbers.table.row(nearest).label}; {open_} of {len(others)} leads are within item noise"
    half = normal_quantile(1 - numbers.alpha) * numbers.error_of_difference(claim.row, nearest)
    effects = (_effect(f"over {nearest}", effect, half=half, above=0.0),)
    return Found(outcome, detail, p_values[nearest], power_unpaired=unpaired, power_paired=paired, effects=effects)


def _best_of_board(claim: Claim, numbers: Numbers, board: PublishedTable) -> Found:
    ours = numbers.overall(claim.row)
    earlier = [row for row in board.rows if row.dated and row.dated < PREPRINT_DATE and row.name != claim.row]
    above = sorted((-float(board.printed(row.name, "Overall") or "nan"), row.model) for row in earlier)
    above = [(score, model) for score, model in above if -score > ours]
    if not above:
        return Found(outcome="SUPPORTED", detail=f"rank 1 of {len(earlier) + 1} models on file")
    names = ", ".join(f"{model} {-score:.2f}" for score, model in above)
    detail = f"{len(above)} models that were public before the preprint ({PREPRINT_DATE}) are above {ours:g}: {names}"
    return Found(outcome="CONTRADICTED", detail=detail)


def _non_inferior(claim: Claim, numbers: Numbers) -> Found:
    effect = numbers.overall(claim.row) - numbers.overall(claim.against)
    error = numbers.error_of_difference(claim.row, claim.against)
    p_value = normal_tail((effect + claim.margin) / error)
    bound = effect - normal_quantile(1 - numbers.alpha) * error
    unpaired, paired = _powers(numbers, claim.row, claim.against, effect=effect + claim.margin)
    outcome: Outcome = "SUPPORTED" if p_value <= numbers.alpha else "INCONCLUSIVE"
    if effect + normal_quantile(1 - numbers.alpha) * error < -claim.margin:
        outcome = "CONTRADICTED"
    detail = f"difference {effect:+.1f}, lower bound {bound:+.1f} against margin -{claim.margin:g}, items unpaired"
    effects = (_effect(f"over {claim.against}", effect, half=effect - bound, above=-claim.margin),)
    return Found(outcome, detail, p_value, power_unpaired=unpaired, power_paired=paired, effects=effects)


def outcome_of_interval(estimate: float, low: float, high: float, *, least: float) -> Outcome:
    """What an estimate and its interval (points) say of a claim that it is above 0 by at least `least`."""
    if high < least or high <= 0:
        return "CONTRADICTED"
    if low > 0:
        return "SUPPORTED" if estimate >= least else "DIRECTION ONLY"
    return "INCONCLUSIVE" if low <= 0 and high >= least else "DIRECTION ONLY"


def _difference(claim: Claim, numbers: Numbers) -> Found:
    effect = numbers.overall(claim.row) - numbers.overall(claim.against)
    error = numbers.error_of_difference(claim.row, claim.against)
    half = normal_quantile(1 - numbers.alpha / 2) * error
    unpaired, paired = _powers(numbers, claim.row, claim.against, effect=effect, sides=2)
    outcome = outcome_of_interval(effect, effect - half, effect + half, least=claim.least)
    detail = f"difference {effect:+.1f} [{effect - half:+.1f}, {effect + half:+.1f}] points, items unpaired, one run each"
    effects = (_effect(f"over {claim.against}", effect, half=half, above=claim.least),)
    return Found(outcome, detail, min(1.0, 2 * normal_tail(effect / error)), power_unpaired=unpaired, power_paired=paired, effects=effects)


def _candidates(numbers: Numbers, row: str) -> tuple[float, ...]:
    """The printed Overall, and what was probably meant where the audit doubts it."""
    erratum = numbers.table.erratum(row, "Overall")
    suspected = (float(erratum.suspected_value),) if erratum and erratum.column == "Overall" and erratum.suspected_value else ()
    return (numbers.overall(row), *suspected)


def _steps(claim: Claim, numbers: Numbers) -> Found:
    p_values, parts, effects = [], [], []
    for lower, upper in pairwise(claim.rows):
        # Where a value is in doubt the weaker step counts.
        step = min(high - low for high in _candidates(numbers, upper) for low in _candidates(numbers, lower))
        error = numbers.error_of_difference(upper, lower)
        p_values.append(normal_tail((step - claim.least) / error))
        parts.append(f"{lower} to {upper} {step:+.2f}")
        effects.append(_effect(f"{lower} to {upper}", step, half=normal_quantile(1 - numbers.alpha) * error, above=claim.least))
    worst = max(p_values)
    outcome: Outcome = "SUPPORTED" if worst <= numbers.alpha else "INCONCLUSIVE"
    return Found(outcome, f"steps {', '.join(parts)}, each to exceed {claim.least:g}", worst, effects=tuple(effects))


def _plateau(claim: Claim, numbers: Numbers) -> Found:
    p_values, parts, effects = [], [], []
    for row in claim.rows:
        if (row, "Overall") in numbers.defects:
            parts.append(f"{row} is defective")
            continue
        effect = numbers.overall(row) - numbers.overall(claim.row)
        error = numbers.error_of_difference(row, claim.row)
        p_values.append(normal_tail((claim.margin - abs(effect)) / error))
        parts.append(f"{row} {effect:+.2f}")
        half = normal_quantile(1 - numbers.alpha) * error
        effects.append(_effect(f"{row} from {claim.row}", effect, half=half, above=-claim.margin, below=claim.margin))
    detail = f"differences from {claim.row}: {', '.join(parts)}; margin {claim.margin:g}"
    if not p_values:
        return Found(outcome="NOT TESTED", detail=detail)
    supported = len(p_values) == len(claim.rows) and max(p_values) <= numbers.alpha
    return Found("SUPPORTED" if supported else "INCONCLUSIVE", detail, max(p_values), effects=tuple(effects))


def _range(claim: Claim, numbers: Numbers) -> Found:
    rows = [row for row in claim.rows if (row, "Overall") not in numbers.defects]
    values = [numbers.overall(row) for row in rows]
    spread = max(values) - min(values)
    error = math.sqrt(sum(numbers.error(row) ** 2 for row in rows) / len(rows))
    half = range_bound(len(rows), alpha=2 * numbers.alpha) * error
    p_value = range_tail((claim.margin - spread) / error, len(rows))
    outcome: Outcome = "SUPPORTED" if spread + half <= claim.margin else "INCONCLUSIVE"
    if spread - half > claim.margin:
        outcome = "CONTRADICTED"
    left_out = [row for row in claim.rows if row not in rows]
    detail = f"largest difference {spread:.2f}, simultaneous upper bound {spread + half:.1f} against {claim.margin:g}, items unpaired"
    label = f"largest difference of {len(rows)} rows"
    effects = (Effect(label=label, estimate=spread, low=max(spread - half, 0.0), high=spread + half, below=claim.margin),)
    return Found(outcome, detail + (f"; {', '.join(left_out)} left out as defective" if left_out else ""), p_value, effects=effects)
