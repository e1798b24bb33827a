"""Checks S0 to S12 of a steered latent: what moved, what did not, and whether any latent would have done the same.

Here are those on rewards (S0 to S5) and the list of all. Source: spec of the checks, related systems, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from replication.report.steering.accuracy import margin, utility
from replication.report.steering.check import Check, passed, signed
from replication.report.steering.controls import ablation, baselines, dose_response, random_control
from replication.report.steering.experiment import STRATA, Floats, Steering, require_strata
from replication.report.steering.paired_shifts import Interval, hodges_lehmann, kolmogorov_smirnov, standardised_shift, wasserstein
from replication.report.steering.selection import CrossFit, cross_fit, stability

EQUIVALENCE = 0.05
SMALLEST_SHIFT = 0.2
SMALLEST_DISTANCE = 0.1
# The head is float32 in all of them; a latent in a low precision is rounded once more when it is multiplied.
IDENTITY_TOLERANCE = {"float32": 1e-3, "float16": 2e-3, "bfloat16": 1e-2}
# What the claim of the paper rests on (C6), and what keeps it from being bought with accuracy.
CLAIM_CHECKS = ("S3", "S5", "S6", "S8")


def checks(data: Steering, *, seed: int = 0) -> list[Check]:
    """All checks in their order; where the latent was chosen on the target itself, S3x, S5x and S7x are these cross-fitted.

    Of a steering file's edit those that ask nothing of how its latents were chosen. Raises UsageProblem when a stratum has no completion.
    """
    require_strata(data)
    if data.from_file:
        return [
            identity(data),
            shift(data, data.change, seed=seed),
            shape(data, seed=seed),
            specificity(data, data.change, seed=seed),
            *utility(data),
            *margin(data, data.change, seed=seed),
        ]
    found = [
        identity(data),
        sign(data),
        firing(data),
        shift(data, data.change, seed=seed),
        shape(data, seed=seed),
        specificity(data, data.change, seed=seed),
        *utility(data),
        *margin(data, data.change, seed=seed),
        random_control(data),
        ablation(data, seed=seed),
        dose_response(data),
        *stability(data, seed=seed),
        *baselines(data),
    ]
    return [*found, *cross_fitted(data, cross_fit(data, seed=seed), seed=seed)] if data.selects_on_target else found


def decisive_change(data: Steering, *, seed: int) -> Floats:
    """The shift of each completion by which the claim is judged: cross-fitted where the latent was chosen on the target itself."""
    return cross_fit(data, seed=seed).change if data.selects_on_target and not data.from_file else data.change


def cross_fitted(data: Steering, fit: CrossFit, *, seed: int) -> list[Check]:
    """S3, S5 and S7 with the latent of each prompt chosen on the other four fifths of the prompts."""
    label = f" (cross-fit, {fit.label})"
    again = [shift(data, fit.change, seed=seed), specificity(data, fit.change, seed=seed), *margin(data, fit.change, seed=seed)]
    return [check._replace(name=f"{check.name}x", question=check.question + label) for check in again if check.name != "S7k"]


def claim_holds(found: Sequence[Check]) -> Literal["all pass", "not all pass", "not measured"]:
    """Whether S3, S5, S6 and S8 all pass; an intersection of tests, which needs no correction for their number.

    With a latent chosen on the target itself, S3 and S5 count as cross-fitted. Source: claims, C6 steering.
    """
    by_name = {check.name: check.outcome for check in found}
    outcomes = [by_name.get(f"{name}x", by_name[name]) for name in CLAIM_CHECKS]
    if "fail" in outcomes:
        return "not all pass"
    return "all pass" if all(outcome == "pass" for outcome in outcomes) else "not measured"


def how_many(found: Sequence[Check]) -> str:
    """A sentence on multiple testing."""
    tested = [check for check in found if check.outcome in ("pass", "fail")]
    good = sum(check.outcome == "pass" for check in tested)
    return (
        f"{len(found)} lines, {len(tested)} of them tests with a threshold, {good} passed. Levels are those of each test alone, not "
        f"corrected for their number; the claim itself is that {', '.join(CLAIM_CHECKS)} all pass, which needs no correction."
    )


def d_of(data: Steering, change: Floats, stratum: str, *, level: float, seed: int) -> Interval:
    """Standardised shift of a stratum, resampled by prompt."""
    mask = data.strata[stratum]
    return standardised_shift(change[mask], data.rewards[mask], data.target.items[mask], level=level, seed=seed)


def identity(data: Steering) -> Check:
    """S0: c = 1 changes nothing, the edited model shifts rewards by (c - 1) w z, and the cached latents give the rewards."""
    scale = float(np.abs(data.change).max())
    error = float(np.abs(data.steered_rewards - data.rewards - data.change).max())
    # Where the latent never fires there is no shift to be relative to, and none may have happened.
    relative = error / scale if scale else float(error > 0)
    still = float(np.abs(data.identity_rewards - data.rewards).max())
    rebuilt = (data.head[data.target.indices] * data.target.values).sum(axis=1)
    missed = float(np.abs(rebuilt - data.rewards).max()) / (float(np.abs(data.rewards).max()) or 1.0)
    tolerance = IDENTITY_TOLERANCE[str(data.facts["dtype"])]
    text = f"largest change at c = 1: {still:g}; relative error of the shift {relative:.1e}, of rewards from cached latents {missed:.1e}"
    return Check("S0", "c = 1 is the identity; else (c - 1) w z", text, passed(still == 0 and max(relative, missed) < tolerance))


def sign(data: Steering) -> Check:
    """S1: the head's weight and the feature score point the same way; the shift is to the right only if w > 0 and c > 1."""
    weight, score = float(data.head[data.latent]), float(data.s[data.latent])
    way = (data.multiplier - 1) * weight
    text = (
        f"latent {data.latent}: w = {weight:+.3g}, s = {score:+.3f}, t = {data.t[data.latent]:+.3f}; "
        f"c = {data.multiplier:g} moves its completions {'right' if way > 0 else 'left' if way < 0 else 'nowhere'}"
    )
    return Check("S1", "head weight and s have the same sign", text, passed(weight * score > 0))


def firing(data: Steering) -> Check:
    """S2: how often the latent fires in each stratum (z > 0, Wilson intervals), and the ratio of T to C2, both chosen replies."""
    z = data.target.activation(data.latent)
    found, counts = [], {}
    for name in STRATA:
        part = z[data.strata[name]]
        fired = int((part > 0).sum())
        counts[name] = (fired, len(part))
        low, high = proportion_confint(fired, len(part), method="wilson")
        mean = f", z {part[part > 0].mean():.2f}" if fired else ""
        found.append(f"{name} {fired}/{len(part)} = {fired / len(part):.3f} [{low:.3f}, {high:.3f}]{mean}")
    (a, n), (b, m) = counts["T"], counts["C2"]
    negative = int((z < 0).sum())
    found += [f"negative in {negative} completions"] if negative else []
    # Half a count is added to each, so that a latent that never fires in one of them still has a ratio with an interval.
    low, high = confint_proportions_2indep(a, n, b, m, compare="ratio", method="log-adjusted")
    ratio = (a + 0.5) / (n + 0.5) / ((b + 0.5) / (m + 0.5))
    found.append(f"T/C2 {ratio:.2f} [{low:.2f}, {high:.2f}]")
    return Check("S2", "fires more often on T than on C2", "; ".join(found), passed(bool(low > 1)))


def shift(data: Steering, change: Floats, *, seed: int) -> Check:
    """S3: mean shift on T in standard deviations with its BCa interval, and the Hodges-Lehmann estimate."""
    inside = change[data.strata["T"]]
    d = d_of(data, change, "T", level=0.95, seed=seed)
    text = f"mean {signed(float(inside.mean()))}, Hodges-Lehmann {signed(hodges_lehmann(inside))}, d {d.show()}"
    outcome = passed(d.low > SMALLEST_SHIFT) if d.known else "not measured"
    return Check("S3", f"d on T above {SMALLEST_SHIFT} at {data.edited}", text, outcome)


def shape(data: Steering, *, seed: int) -> Check:
    """S4: Kolmogorov-Smirnov and Wasserstein distance of before and after, on T and on the concept's complement (C2 and C3)."""
    after = data.rewards + data.change
    found, parts = {}, []
    for name, mask in (("T", data.strata["T"]), ("C2+C3", data.strata["C2"] | data.strata["C3"])):
        before, then = data.rewards[mask], after[mask]
        found[name] = kolmogorov_smirnov(before, then, data.target.items[mask], seed=seed)
        one = found[name]
        parts.append(f"{name}: D {one.d:.3f} (p {one.p:.2g}, upper bound {one.upper:.3f}), W1/SD {wasserstein(before, then):.3f}")
    question = f"D above {SMALLEST_DISTANCE} on T, its upper bound below {EQUIVALENCE} elsewhere"
    outcome = passed(found["T"].d > SMALLEST_DISTANCE and found["C2+C3"].upper < EQUIVALENCE)
    return Check("S4", question, "; ".join(parts), outcome if np.isfinite(found["C2+C3"].upper) else "not measured")


def specificity(data: Steering, change: Floats, *, seed: int) -> Check:
    """S5: the 90 % interval of d lies inside +-0.05 on C2 and on C3 (two one-sided tests). C1 is stated beside them."""
    found = {name: d_of(data, change, name, level=0.90, seed=seed) for name in ("C1", "C2", "C3")}
    d_t = d_of(data, change, "T", level=0.90, seed=seed).value
    text = "; ".join(f"d on {name} {part.show()}" for name, part in found.items())
    if found["C2"].value and np.isfinite(found["C2"].value):
        text += f"; d_T / d_C2 {d_t / found['C2'].value:.1f}"
    question = f"no shift elsewhere: d within +-{EQUIVALENCE} on C2 and C3"
    tested = (found["C2"], found["C3"])
    if not change[data.strata["T"]].any():
        return Check("S5", question, f"{text}; nothing moves on T either, so there is nothing to be specific", "not measured")
    if not all(part.known for part in tested):
        return Check("S5", question, text, "not measured")
    return Check("S5", question, text, passed(all(part.low > -EQUIVALENCE and part.high < EQUIVALENCE for part in tested)))
