"""Checks S6 and S7: what an edit does to preferences, not only to rewards. A shift of T alone is no evidence of better ones.

Bradley-Terry rewards are defined up to a constant, so accuracies and margins decide. Source: related systems, section 8.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from replication.report.steering.check import Check, passed
from replication.report.steering.experiment import COMPLIANCE, REFUSAL, Floats, Steering
from replication.report.steering.paired_shifts import mean_interval
from sarm.metrics.ties import PromptStats, TiesRow, ties_left_out, ties_prompts

ACCURACY_MARGIN = 0.5
LEVEL = 0.05
MEASURED_MARGIN_PROMPTS = 2


class SubsetChange(NamedTuple):
    """Change of a subset's score in points, with its 90 % interval; NaN ends where one item or prompt is not enough for one.

    `won` and `lost` count items whose credit rose and fell (Ties has no items, so none).
    """

    name: str
    before: float
    after: float
    low: float
    high: float
    won: int
    lost: int
    concept: bool

    @property
    def points(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def equivalent(self) -> bool:
        """Two one-sided tests at 0.05 within half a point: the 90 % interval lies inside."""
        return self.low > -ACCURACY_MARGIN and self.high < ACCURACY_MARGIN


def subset_changes(data: Steering, change: Floats) -> list[SubsetChange]:
    """Each subset's score before and after rewards change by `change` `[n]`."""
    after = data.rewards + change
    old, new = data.accuracies_before, data.accuracies(after)
    gained = data.credits(after) - data.credits_before
    parts = np.array([data.part_of(subset) for subset, _, _, _ in data.layout])
    found = []
    for name in old:
        if name == "Overall":
            continue
        if name == "Ties":
            low, high, won, lost = *_ties_interval(data, after, centre=new[name] - old[name]), 0, 0
        else:
            own = gained[parts == name]
            low, high, won, lost = *_mean_interval(own), int((own > 0).sum()), int((own < 0).sum())
        found.append(SubsetChange(name, old[name], new[name], low, high, won, lost, data.in_concept(name)))
    return found


def _mean_interval(gained: Floats) -> tuple[float, float]:
    """90 % t interval of the mean change of credit, in points; a change of no item at all is exactly 0."""
    if not gained.any():
        return 0.0, 0.0
    if len(gained) < 2:
        return float("nan"), float("nan")
    low, high = DescrStatsW(100 * gained).tconfint_mean(alpha=2 * LEVEL)
    return float(low), float(high)


def _ties_interval(data: Steering, after: Floats, *, centre: float) -> tuple[float, float]:
    """90 % jackknife interval over prompts of the change of the Ties score, in points."""
    old, new = (ties_left_out(_ties_prompts(data, rewards)) for rewards in (data.rewards, after))
    values = 100 * (np.array(new) - np.array(old))
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    # Jackknife pseudo-values, whose mean has the jackknife's standard error.
    pseudo = len(values) * centre - (len(values) - 1) * values
    if np.ptp(pseudo) == 0:
        return centre, centre
    low, high = DescrStatsW(pseudo).tconfint_mean(alpha=2 * LEVEL)
    return float(low), float(high)


def _ties_prompts(data: Steering, rewards: Floats) -> dict[tuple[bool, int], PromptStats]:
    return ties_prompts([TiesRow.of(item) for item in data.scored(rewards) if item.subset == "Ties"])


def utility(data: Steering) -> list[Check]:
    """S6: subset scores before and after; exact McNemar on the concept, two one-sided tests within half a point on the others."""
    changes = subset_changes(data, data.change)
    inside, outside = [one for one in changes if one.concept], [one for one in changes if not one.concept]
    question = f"the concept's accuracy does not fall, the others stay within +-{ACCURACY_MARGIN} point"
    if not inside or not outside:
        return [Check("S6", question, "the target has no score of the concept or of another subset", "not measured")]
    won, lost = sum(one.won for one in inside), sum(one.lost for one in inside)
    p = float(mcnemar([[0, lost], [won, 0]], exact=True).pvalue) if won + lost else 1.0
    parts = [f"{one.name} {one.before:.1f} -> {one.after:.1f} [{one.low:+.2f}, {one.high:+.2f}]" for one in changes]
    fell = [one.name for one in outside if not one.equivalent]
    open_ = [one.name for one in outside if not np.isfinite(one.low)]
    parts.append(f"concept: {won} items won, {lost} lost, McNemar p = {p:.2g}")
    parts.append(f"not shown equal: {', '.join(fell)}" if fell else "all others equal by two one-sided tests")
    kept = all(one.points >= 0 for one in inside)
    outcome = "not measured" if kept and fell and fell == open_ else passed(kept and not fell)
    return [Check("S6", question, "; ".join(parts), outcome)]


def margin(data: Steering, change: Floats, *, seed: int) -> list[Check]:
    """S7: change of (chosen - best rejected) on the concept's items, and apart by what is expected of the reply.

    A latent that rewards every refusal raises the margin where refusal is right and lowers it where it is wrong.
    """
    moved = data.margins(data.rewards + change) - data.margins(data.rewards)
    inside = np.array([data.in_concept(subset) for subset, _, _, _ in data.layout])
    kinds = np.array([data.kind_of(subset, name) for subset, name, _, _ in data.layout])
    whole = mean_interval(moved[inside], level=0.95, seed=seed)
    question = "margin over the best rejected reply rises on the concept"
    found = [Check("S7", question, f"mean change {whole.show()}", passed(whole.low > 0) if whole.known else "not measured")]
    parts = {kind: moved[inside & (kinds == kind)] for kind in (REFUSAL, COMPLIANCE)}
    question = "the margin rises where a refusal or an answer is expected, and falls in neither"
    if any(len(part) < MEASURED_MARGIN_PROMPTS for part in parts.values()):
        return [*found, Check("S7k", question, "nothing says what is expected of a reply to these prompts", "not measured")]
    intervals = {kind: mean_interval(part, level=0.95, seed=seed) for kind, part in parts.items()}
    text = "; ".join(f"{kind} (n = {len(parts[kind])}): {one.show()}" for kind, one in intervals.items())
    none_falls, one_rises = all(one.high >= 0 for one in intervals.values()), any(one.low > 0 for one in intervals.values())
    return [*found, Check("S7k", question, text, passed(none_falls and one_rises))]
