"""The paper's claims from our own paired items: the same prompts for both models, over as many seeds as there are.

A miniature gives analogues only: they say how the suite judges, and never alter what is known of the paper's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import NamedTuple

from replication.report.claims.definitions import Claim, ClaimResult, Effect, Outcome
from replication.report.claims.paired_items import Credits, differences
from replication.report.claims.published import outcome_of_interval
from replication.report.statistics import PairedDifference, holm, tail, two_way_bootstrap

# One entry a row of ours; of each, the credits of every seed.
Arms = Mapping[str, Sequence[Credits]]
WITHOUT_COUNTS = "Ties"
# Said where an interval is not the 95 % one: each of its ends is a one-sided 95 % bound.
ONE_SIDED = "90 % intervals"


class OwnFound(NamedTuple):
    """The evaluation of one claim from our items, before the adjustment over all."""

    outcome: Outcome
    detail: str
    p_value: float | None
    seeds: int = 1
    effects: tuple[Effect, ...] = ()


class Sample(NamedTuple):
    """The arms with what the tests share."""

    arms: Arms
    alpha: float
    seed: int
    resamples: int

    def difference(self, left: str, right: str, *, alpha: float) -> PairedDifference:
        """`left` minus `right`, points, with the 1 - alpha interval."""
        per_seed = [differences(a, b) for a, b in zip(self.arms[left], self.arms[right], strict=True)]
        return two_way_bootstrap(per_seed, seed=self.seed, resamples=self.resamples, alpha=alpha)

    def without_ties(self, left: str, right: str) -> float:
        """The same estimate over the five subsets that have items, points."""
        found = [differences(a, b) for a, b in zip(self.arms[left], self.arms[right], strict=True)]
        means = [fmean(values) for one in found for subset, values in one.items() if subset != WITHOUT_COUNTS]
        return 100 * fmean(means)

    @property
    def seeds(self) -> int:
        """Seeds of each arm."""
        return min(len(credits) for credits in self.arms.values())


def rows_needed(claim: Claim) -> tuple[str, ...]:
    """The rows of ours that bear on a claim; empty where none does."""
    return (*((claim.ours,) if claim.ours else ()), *claim.controls)


def own_claims(
    claims: Sequence[Claim], arms: Mapping[str, Arms], *, protocol: str, analogue: bool, alpha: float = 0.05, seed: int = 0,
    resamples: int = 10_000,
) -> dict[str, ClaimResult]:  # fmt: skip
    """Each claim whose rows are all in `arms` (experiment -> row -> seeds), Holm-adjusted over those; by the claim's id.

    Raises PairingError where two rows were scored on different items, StatisticsError for too few of them.
    """
    found: dict[str, OwnFound] = {}
    for claim in claims:
        one = evaluated(claim, arms.get(claim.experiment, {}), alpha=alpha, seed=seed, resamples=resamples)
        if one is not None:
            found[claim.id] = one
    return judged(claims, found, protocol=protocol, analogue=analogue, alpha=alpha)


def evaluated(claim: Claim, arms: Arms, *, alpha: float, seed: int = 0, resamples: int = 10_000) -> OwnFound | None:
    """A claim about accuracies from the rows of its experiment; None where one of its rows is not there, or it is about something else."""
    rows = rows_needed(claim)
    if not rows or not set(rows) <= set(arms):
        return None
    known = {row: arms[row] for row in rows}
    found = _evaluate(claim, Sample(arms=known, alpha=alpha, seed=seed, resamples=resamples))
    return found._replace(seeds=min(len(credits) for credits in known.values()))


def judged(
    claims: Sequence[Claim], found: Mapping[str, OwnFound], *, protocol: str, analogue: bool, alpha: float
) -> dict[str, ClaimResult]:
    """The verdicts on evaluated claims (by id) of one protocol, Holm-adjusted over those with a p value."""
    tested = [name for name, one in found.items() if one.p_value is not None]
    adjusted = dict(zip(tested, holm([found[name].p_value or 0.0 for name in tested]), strict=True))
    return {
        claim.id: _result(
            claim, found[claim.id], p_holm=adjusted.get(claim.id), alpha=alpha, protocol=protocol, analogue=analogue
        )
        for claim in claims
        if claim.id in found
    }


def _result(claim: Claim, found: OwnFound, *, p_holm: float | None, alpha: float, protocol: str, analogue: bool) -> ClaimResult:
    alone, seeds = found.outcome, found.seeds
    outcome, detail = found.outcome, f"{found.detail}; {seeds} {'seed' if seeds == 1 else 'seeds'}"
    if outcome == "SUPPORTED" and p_holm is not None and p_holm > alpha:
        outcome, detail = "DIRECTION ONLY", f"{detail}; not among all claims (Holm p {p_holm:.3f})"
    if outcome == "SUPPORTED" and seeds < claim.seeds:
        outcome, detail = "DIRECTION ONLY", f"{detail}; {claim.seeds} are needed"
    if analogue:
        outcome, alone = _analogue(outcome), _analogue(alone)
    return ClaimResult(
        id=claim.id, says=claim.says, place=claim.place, test=claim.test, outcome=outcome, alone=alone, basis="own results",
        detail=detail, p_value=found.p_value, p_holm=p_holm, protocol=protocol, effects=found.effects,
    )  # fmt: skip


def _analogue(outcome: Outcome) -> Outcome:
    return "SUPPORTED-ANALOGUE" if outcome == "SUPPORTED" else "NOT-SUPPORTED-ANALOGUE"


def _evaluate(claim: Claim, sample: Sample) -> OwnFound:
    tests = {"non-inferior": _non_inferior, "difference": _difference, "own-results-only": _difference}
    tests |= {"steps": _steps, "plateau": _plateau, "range": _range}
    return tests[claim.kind](claim, sample)


def _above_nothing(found: PairedDifference) -> float:
    """The p value of a difference above 0, doubled: at 0.05 it says what the lower end of the 95 % interval does.

    Not that of any difference: one to the wrong side is no evidence for a claim, and must not come first among all claims.
    """
    return min(1.0, 2 * tail(found, beyond=0.0))


def _effect(label: str, found: PairedDifference, *, above: float | None = None, below: float | None = None) -> Effect:
    return Effect(label=label, estimate=found.estimate, low=found.low, high=found.high, above=above, below=below)


def _text(name: str, found: PairedDifference) -> str:
    return f"{name} {found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    """A claim holds only if it holds against every control."""
    order: tuple[Outcome, ...] = ("CONTRADICTED", "INCONCLUSIVE", "DIRECTION ONLY", "SUPPORTED")
    return min(outcomes, key=order.index)


def _difference(claim: Claim, sample: Sample) -> OwnFound:
    outcomes, parts, p_values, effects = [], [], [], []
    for control in claim.controls:
        found = sample.difference(claim.ours, control, alpha=sample.alpha)
        outcomes.append(outcome_of_interval(found.estimate, found.low, found.high, least=claim.least))
        parts.append(f"{_text(f'over {control}', found)}, without Ties {sample.without_ties(claim.ours, control):+.2f}")
        p_values.append(_above_nothing(found))
        effects.append(_effect(f"over {control}", found, above=claim.least))
    detail = f"{'; '.join(parts)}; at least {claim.least:g} points count"
    return OwnFound(_worst(outcomes), detail, max(p_values), effects=tuple(effects))


def _non_inferior(claim: Claim, sample: Sample) -> OwnFound:
    outcomes: list[Outcome] = []
    parts, p_values, effects = [], [], []
    for control in claim.controls:
        # The lower end of the 90 % interval is the one-sided 95 % bound.
        found = sample.difference(claim.ours, control, alpha=2 * sample.alpha)
        inside, outside = found.low > -claim.margin, found.high < -claim.margin
        outcomes.append("SUPPORTED" if inside else "CONTRADICTED" if outside else "INCONCLUSIVE")
        parts.append(f"{_text(f'over {control}', found)}, without Ties {sample.without_ties(claim.ours, control):+.2f}")
        p_values.append(tail(found, beyond=-claim.margin))
        effects.append(_effect(f"over {control}", found, above=-claim.margin))
    return OwnFound(_worst(outcomes), f"{'; '.join(parts)}; margin -{claim.margin:g}, {ONE_SIDED}", max(p_values), effects=tuple(effects))


def _steps(claim: Claim, sample: Sample) -> OwnFound:
    outcomes: list[Outcome] = []
    parts, p_values, effects = [], [], []
    for lower, upper in pairwise(claim.controls):
        found = sample.difference(upper, lower, alpha=2 * sample.alpha)
        above, below = found.low > claim.least, found.high < claim.least
        outcomes.append("SUPPORTED" if above else "CONTRADICTED" if below else "INCONCLUSIVE")
        parts.append(_text(f"{lower} to {upper}", found))
        p_values.append(tail(found, beyond=claim.least))
        effects.append(_effect(f"{lower} to {upper}", found, above=claim.least))
    detail = f"{'; '.join(parts)}; each to exceed {claim.least:g}, {ONE_SIDED}"
    return OwnFound(_worst(outcomes), detail, max(p_values), effects=tuple(effects))


def _plateau(claim: Claim, sample: Sample) -> OwnFound:
    outcomes: list[Outcome] = []
    parts, p_values, effects = [], [], []
    for row in claim.controls:
        found = sample.difference(row, claim.ours, alpha=2 * sample.alpha)
        outside = found.low > claim.margin or found.high < -claim.margin
        inside = -claim.margin < found.low and found.high < claim.margin
        outcomes.append("SUPPORTED" if inside else "CONTRADICTED" if outside else "INCONCLUSIVE")
        parts.append(_text(row, found))
        turned = found._replace(estimate=-found.estimate)
        p_values.append(max(tail(found, beyond=-claim.margin), tail(turned, beyond=-claim.margin)))
        effects.append(_effect(f"{row} from {claim.ours}", found, above=-claim.margin, below=claim.margin))
    detail = f"from {claim.ours}: {'; '.join(parts)}; margin {claim.margin:g}, {ONE_SIDED}"
    return OwnFound(_worst(outcomes), detail, max(p_values), effects=tuple(effects))


def _range(claim: Claim, sample: Sample) -> OwnFound:
    """The simultaneous 90 % bound of the largest difference, by Bonferroni over the pairs."""
    pairs = list(combinations(claim.controls, 2))
    found = [sample.difference(left, right, alpha=2 * sample.alpha / len(pairs)) for left, right in pairs]
    spread = max(abs(one.estimate) for one in found)
    bound = max(max(abs(one.low), abs(one.high)) for one in found)
    beyond = any(one.low > claim.margin or one.high < -claim.margin for one in found)
    outcome: Outcome = "SUPPORTED" if bound <= claim.margin else "CONTRADICTED" if beyond else "INCONCLUSIVE"
    detail = f"largest difference {spread:.2f}, simultaneous upper bound {bound:.2f} against {claim.margin:g}, {len(claim.controls)} rows"
    largest = max(found, key=lambda one: abs(one.estimate))
    low = max(0.0, min(abs(largest.low), abs(largest.high)) if largest.low * largest.high > 0 else 0.0)
    effects = (Effect(label=f"largest difference of {len(claim.controls)} rows", estimate=spread, low=low, high=bound, below=claim.margin),)
    # That every pair lies within the margin: the worst pair's larger tail, by Bonferroni as the bound.
    ends = [end for one in found for end in (one, one._replace(estimate=-one.estimate))]
    p_value = min(1.0, len(pairs) * max(tail(end, beyond=-claim.margin) for end in ends))
    return OwnFound(outcome, detail, p_value, effects=effects)
