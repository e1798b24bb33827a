"""Checks S8 to S10 and S12: would other latents, other doses or cruder means have done the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from replication.report.steering.accuracy import subset_changes
from replication.report.steering.check import Check, Outcome, passed, signed
from replication.report.steering.experiment import STRATA, Floats, Ints, Steering

# Of a file's edit: its multiples, 1 the edit itself.
STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
DOSES = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
RANDOM_LATENTS = 200
# Below so many a 95th percentile is their largest value and no bar.
FEWEST_RANDOM_LATENTS = 20
RANDOM_ORDERS = 500
ABLATED = (1, 3, 10)
BROKEN = 1.0


class Dose(NamedTuple):
    """A factor on the latent, or a multiple of a file's edit: standardised shift of each stratum, and each subset's score in percent."""

    multiplier: float
    shifts: Mapping[str, float]
    accuracies: Mapping[str, float]


class Means(NamedTuple):
    """What a change of rewards does: mean on T, standardised shifts, points of accuracy, mean change of the margin."""

    name: str
    mean_t: float
    shifts: Mapping[str, float]
    concept_points: float
    worst_other: float
    margin: float


def spread_of(data: Steering, stratum: str) -> float:
    """Standard deviation of a stratum's rewards before; NaN where they do not vary."""
    part = data.rewards[data.strata[stratum]]
    return float(part.std(ddof=1)) if len(part) > 1 and np.ptp(part) > 0 else float("nan")


def standardised(data: Steering, change: Floats) -> dict[str, float]:
    """Mean change over the standard deviation before, of each stratum; NaN where that is 0."""
    return {name: float(change[data.strata[name]].mean() / spread_of(data, name)) for name in STRATA}


def matched_latents(data: Steering, count: int) -> Ints:
    """The latents nearest to the chosen one in firing rate on T and in |w| (in standard deviations), it and silent ones left out."""
    mask = data.strata["T"]
    indices, values = data.target.indices[mask], data.target.values[mask]
    rate = np.bincount(indices[values > 0].ravel(), minlength=len(data.head)) / mask.sum()
    others = data.target.active[data.target.active != data.latent]
    features = np.stack([rate, np.abs(data.head)], axis=1)
    spread = features[others].std(axis=0) + 1e-12 if len(others) else np.ones(2)
    distance = (((features[others] - features[data.latent]) / spread) ** 2).sum(axis=1)
    return np.asarray(others[np.argsort(distance, kind="stable")][:count], dtype=np.int64)


def random_control(data: Steering) -> Check:
    """S8: |d| on T against latents matched on firing rate and |w|; beside it |d_T| - |d_C2|, which a latent that fires everywhere lacks."""
    question = f"larger |d| on T than 95 % of up to {RANDOM_LATENTS} latents matched on firing rate and |w|"
    others = matched_latents(data, RANDOM_LATENTS)
    factor = np.abs((data.multiplier - 1) * data.head)
    d = {name: factor * np.abs(data.mean_latents[name]) / spread_of(data, name) for name in ("T", "C2")}
    if len(others) < FEWEST_RANDOM_LATENTS or not np.isfinite(d["T"][data.latent]):
        return Check("S8", question, f"only {len(others)} other latents are active, or rewards on T do not vary", "not measured")
    parts, outcome = [], "not measured"
    for name, value in (("|d_T|", d["T"]), ("|d_T| - |d_C2|", d["T"] - d["C2"])):
        own, bar = float(value[data.latent]), float(np.quantile(value[others], 0.95))
        above = (1 + int((value[others] >= own).sum())) / (1 + len(others))
        parts.append(f"{name} {own:.3f} against {bar:.3f} (share at least as large {above:.3f})")
        outcome = passed(own > bar) if name == "|d_T|" else outcome
    weight = np.median(np.abs(data.head[others])) / (abs(data.head[data.latent]) or np.nan)
    parts.append(f"{len(others)} latents, median |w| {weight:.2f} of the chosen one's")
    return Check("S8", question, "; ".join(parts), _outcome(outcome))


def _outcome(name: str) -> Outcome:
    return "pass" if name == "pass" else "fail" if name == "fail" else "not measured"


def ablation(data: Steering, *, seed: int) -> Check:
    """S9: c = 0 moves T the other way; setting the top m latents by s to 0, or by |w z|, or m random ones of those active on T.

    Rewards are linear, so the first part only says that the latent fires on T with the weight's sign; the second is the test.
    """
    carried = data.head * data.mean_latents["T"]
    alive = np.flatnonzero(carried)
    counts = [m for m in ABLATED if m <= len(alive)]
    most = counts[-1] if counts else ABLATED[-1]
    question = f"setting it to 0 lowers T; the top {most} by s lower T more than 95 % of random {most}s"
    if not counts:
        return Check("S9", question, "no latent is active on T", "not measured")
    generator = np.random.default_rng(seed)
    orders = {"s": np.argsort(-data.s, kind="stable"), "|wz|": np.argsort(-np.abs(carried), kind="stable")}
    curves = {name: -np.cumsum(carried[order])[np.array(counts) - 1] for name, order in orders.items()}
    drawn = np.stack([-np.cumsum(carried[generator.permutation(alive)])[np.array(counts) - 1] for _ in range(RANDOM_ORDERS)])
    low = np.quantile(drawn, 0.05, axis=0)
    alone = -float(carried[data.latent])
    shown = {**curves, "random": drawn.mean(axis=0), "lowest 5 % of random": low}
    tops = "; ".join(f"{name}: {' '.join(signed(float(value), 2) for value in curve)}" for name, curve in shown.items())
    text = f"c = 0: {signed(alone)}; mean change on T, top {', '.join(map(str, counts))} by {tops}"
    return Check("S9", question, text, passed(alone < 0 and bool(curves["s"][-1] < low[-1])))


def dose_curve(data: Steering) -> list[Dose]:
    """Standardised shifts and subset scores for each of `DOSES`, or of `STRENGTHS` for a file's edit."""
    curve = []
    for dose in STRENGTHS if data.from_file else DOSES:
        change = data.dosed(dose)
        curve.append(Dose(dose, standardised(data, change), data.accuracies(data.rewards + change)))
    return curve


def dose_response(data: Steering) -> Check:
    """S10: rewards are linear in the factor by construction; what it costs is not. The first dose above 1 that costs a subset a point."""
    question = "dose response and breakdown point"
    if not data.dosed(DOSES[-1])[data.strata["T"]].any():
        why = "has weight 0" if not data.head[data.latent] else "never fires on T"
        return Check("S10", question, f"the latent {why}: no dose moves T", "fail")
    curve = dose_curve(data)
    base = next(dose.accuracies for dose in curve if dose.multiplier == 1.0)
    broken = [
        f"{dose.multiplier:g} ({', '.join(name for name in base if name != 'Overall' and base[name] - dose.accuracies[name] > BROKEN)})"
        for dose in curve
        if dose.multiplier > 1 and any(base[name] - dose.accuracies[name] > BROKEN for name in base if name != "Overall")
    ]
    concept = next((name for name in base if data.in_concept(name)), "")
    scores = [dose.accuracies[concept] for dose in curve] if concept else [0.0]
    rho = stats.spearmanr(DOSES, scores).statistic if np.ptp(scores) > 0 else 0.0
    slope = curve[-1].shifts["T"] / (DOSES[-1] - 1)
    text = (
        f"d on T rises by {slope:+.3f} a unit of c, exactly linear; accuracy on the concept {min(scores):.1f} to {max(scores):.1f} "
        f"over c = {DOSES[0]:g} to {DOSES[-1]:g}, Spearman {rho:+.2f}; "
        f"first dose that costs a subset over {BROKEN:g} point: {(broken or ['none'])[0]}"
    )
    return Check("S10", question, text, "stated")


def cruder_means(data: Steering) -> list[Means]:
    """The edit, the other rules' latents, and cruder means, each scaled to the edit's mean shift on T; fitted on the target itself.

    A constant on prompts that are known to be the concept's; the mean difference of T and C1 in hidden states; and the head moved
    along the mean difference of their latents (after HARVE, 2603.06131's idea of editing the head's vector without a choice of one).
    """
    inside, strata = data.target.inside, data.strata
    states = data.states @ (data.states[strata["T"]].mean(axis=0) - data.states[strata["C1"]].mean(axis=0))
    direction = data.mean_latents["T"] - data.mean_latents["C1"]
    latents = (direction[data.target.indices] * data.target.values).sum(axis=1)
    raw: dict[str, Floats] = {f"latent {data.latent}, c = {data.multiplier:g}": data.change}
    for rule, latent in data.facts["rules"].items():
        if latent is None:
            raw[f"{rule}: no latent"] = np.zeros_like(data.rewards)
        elif latent != data.latent:
            raw[f"{rule}: latent {latent}"] = data.shift(latent, 2.0)
    raw |= {"constant on the concept's prompts": inside.astype(np.float64), "mean difference of states": states}
    raw["mean difference of latents in the head"] = latents
    aim = float(data.change[strata["T"]].mean())
    return [_means(data, name, _scaled(change, float(change[strata["T"]].mean()), aim)) for name, change in raw.items()]


def _scaled(change: Floats, mean: float, aim: float) -> Floats:
    """The change with mean shift `aim`; unmoved where it does not move T at all."""
    return change * (aim / mean) if mean else np.zeros_like(change)


def _means(data: Steering, name: str, change: Floats) -> Means:
    found = subset_changes(data, change)
    inside = np.array([data.in_concept(subset) for subset, _, _, _ in data.layout])
    margins = data.margins(data.rewards + change) - data.margins(data.rewards)
    nan = float("nan")
    return Means(
        name=name,
        mean_t=float(change[data.strata["T"]].mean()),
        shifts=standardised(data, change),
        concept_points=float(np.mean([one.points for one in found if one.concept])) if any(one.concept for one in found) else nan,
        worst_other=min((one.points for one in found if not one.concept), default=nan),
        margin=float(margins[inside].mean()),
    )


def baselines(data: Steering) -> list[Check]:
    """S12: whether cruder means with the same mean shift on T move C2 less or the margin more."""
    text = "; ".join(
        f"{one.name}: d_C2 {signed(one.shifts['C2'])}, margin {signed(one.margin)}, concept {one.concept_points:+.1f} points"
        for one in cruder_means(data)
    )
    return [Check("S12", "cruder means at the same mean shift on T", text, "stated")]
