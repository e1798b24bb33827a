"""The choice of a latent, again on other prompts: feature scores in numpy, the 5-fold cross-fit, and S11, stability.

Formulas and rules are those of `sarm/reward/steering.py`, which needs torch; a test holds both together.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from replication.report.steering.check import Check
from replication.report.steering.experiment import Completions, Floats, Ints, Mask, Steering

Rule = Literal["argmax-s", "argmax-s-bounded-t", "s-minus-t"]
RULES: tuple[Rule, ...] = ("argmax-s", "argmax-s-bounded-t", "s-minus-t")
FOLDS = 5
SELECTION_RESAMPLES = 1000
TOP = 20
CONSTANTS = (0.0, 1.0, 10.0)


class ItemSums(NamedTuple):
    """Sums of latents over the pairs of each item, `[items, columns]`, for the latents that are ever active (`columns`).

    `inside` says which items belong to the concept, `prompts` which share a prompt.
    """

    columns: Ints
    chosen: Floats
    rejected: Floats
    inside: Mask
    prompts: Ints
    n_latents: int


class CrossFit(NamedTuple):
    """Change of every reward, `[n]`, by latents that were chosen without the completion's prompt; the latent of each fold."""

    change: Floats
    latents: tuple[int | None, ...]

    @property
    def label(self) -> str:
        """Which latents the folds chose."""
        counts = Counter("none" if latent is None else str(latent) for latent in self.latents)
        return "latent " + ", ".join(f"{latent} in {count} of {len(self.latents)}" for latent, count in counts.most_common())


def item_sums(part: Completions, *, n_latents: int) -> ItemSums:
    """Latents of a benchmark summed over the chosen-rejected pairs of each item."""
    columns = part.active
    numbers, first, items = np.unique(part.items, return_index=True, return_inverse=True)
    sums = {side: np.zeros((len(numbers), len(columns))) for side in ("chosen", "rejected")}
    place = np.searchsorted(columns, part.indices)
    weights = np.array([row["pairs"] for row in part.rows], dtype=np.float64)
    for side, mask in (("chosen", part.chosen), ("rejected", ~part.chosen)):
        rows, kept = np.nonzero((part.values != 0) & mask[:, None])
        np.add.at(sums[side], (items[rows], place[rows, kept]), part.values[rows, kept] * weights[rows])
    prompts = np.unique([str(part.rows[row]["prompt"]) for row in first], return_inverse=True)[1]
    return ItemSums(columns, sums["chosen"], sums["rejected"], part.inside[first], prompts.astype(np.int64), n_latents)


def scores_of(chosen: Floats, rejected: Floats, *, n_latents: int, constant: float = 1.0) -> Floats:
    """s of active latents, `[..., columns]`: the mean in the denominator is over all `n_latents`, most of which are 0.

    `constant` scales that mean. Source: inference_for_latents.py:207-217.
    """
    total = chosen + rejected
    damped = total + constant * total.sum(axis=-1, keepdims=True) / n_latents
    return np.divide(chosen - rejected, damped, out=np.zeros_like(damped), where=damped != 0)


def feature_scores(sums: ItemSums, kept: Mask) -> tuple[Floats, Floats]:
    """s on the concept's items and t on all others, `[columns]` each, over the items that are kept."""
    parts = []
    for mask in (kept & sums.inside, kept & ~sums.inside):
        parts.append(scores_of(sums.chosen[mask].sum(axis=0), sums.rejected[mask].sum(axis=0), n_latents=sums.n_latents))
    return parts[0], parts[1]


def choose(s: Floats, t: Floats, columns: Ints, *, rule: Rule, bound: float, n_latents: int) -> int | None:
    """The latent of a rule; None where it would be one that is not more active on chosen replies.

    `s`, `t` and `columns` are `[columns]`; latents outside the columns are never active and have s = t = 0.
    """
    value = {"argmax-s": s, "argmax-s-bounded-t": np.where(np.abs(t) <= bound, s, -np.inf), "s-minus-t": s - np.abs(t)}[rule]
    if not len(value):
        return None
    best = int(np.argmax(value))
    beaten_by_a_silent_one = value[best] <= 0 and len(columns) < n_latents
    return None if s[best] <= 0 or beaten_by_a_silent_one or not np.isfinite(value[best]) else int(columns[best])


def cross_fit(data: Steering, *, seed: int) -> CrossFit:
    """For each fifth of the target's prompts the latent that the other four choose, and the shifts that it makes there.

    Needed because the preprint chooses and tests on the same prompts. Prompts, not items, are dealt out.
    """
    sums = item_sums(data.target, n_latents=len(data.head))
    fold = (np.random.default_rng(seed).permutation(int(sums.prompts.max()) + 1) % FOLDS)[sums.prompts]
    fold_of_row = fold[np.unique(data.target.items, return_inverse=True)[1]]
    change, latents = np.zeros(len(data.rewards)), []
    for number in range(FOLDS):
        s, t = feature_scores(sums, fold != number)
        rule, bound = data.facts["rule"], float(data.facts["bound"])
        latent = choose(s, t, sums.columns, rule=rule, bound=bound, n_latents=sums.n_latents)
        latents.append(latent)
        held_out = fold_of_row == number
        if latent is not None:
            change[held_out] = data.shift(latent, data.multiplier)[held_out]
    return CrossFit(change=change, latents=tuple(latents))


def stability(data: Steering, *, seed: int) -> list[Check]:
    """S11: how often bootstraps of the selection prompts choose the same latent, other constants in s, agreement with the target set."""
    sums = item_sums(data.selection, n_latents=len(data.head))
    s, t = feature_scores(sums, np.ones(len(sums.inside), dtype=bool))
    question = f"the choice over {SELECTION_RESAMPLES} bootstraps of the selection prompts"
    parts = []
    for rule in RULES:
        chosen = _bootstrap_choices(sums, rule=rule, bound=float(data.facts["bound"]), seed=seed)
        own = choose(s, t, sums.columns, rule=rule, bound=float(data.facts["bound"]), n_latents=sums.n_latents)
        often = ", ".join(f"{latent} in {count / SELECTION_RESAMPLES:.0%}" for latent, count in chosen.most_common(3))
        parts.append(f"{rule}: {'none' if own is None else own} ({often})")
    first = Check("S11", question, "; ".join(parts), "stated")
    return [first, _other_constants(sums), _other_set(data, sums, s)]


def _bootstrap_choices(sums: ItemSums, *, rule: Rule, bound: float, seed: int) -> Counter[str]:
    generator = np.random.default_rng(seed)
    parts = []
    for mask in (sums.inside, ~sums.inside):
        count = int(mask.sum())
        weights = generator.multinomial(count, np.full(count, 1 / count), size=SELECTION_RESAMPLES).astype(np.float64)
        parts.append(scores_of(weights @ sums.chosen[mask], weights @ sums.rejected[mask], n_latents=sums.n_latents))
        if rule == "argmax-s":
            parts.append(np.zeros_like(parts[0]))
            break
    found = [choose(s, t, sums.columns, rule=rule, bound=bound, n_latents=sums.n_latents) for s, t in zip(*parts, strict=True)]
    return Counter("none" if latent is None else str(latent) for latent in found)


def _other_constants(sums: ItemSums) -> Check:
    """The constant keeps rare latents from the top; at 0 every latent that fires on chosen replies alone has s = 1."""
    chosen, rejected = sums.chosen[sums.inside].sum(axis=0), sums.rejected[sums.inside].sum(axis=0)
    parts = []
    for constant in CONSTANTS:
        s = scores_of(chosen, rejected, n_latents=sums.n_latents, constant=constant)
        best = np.flatnonzero(s == s.max())
        others = f" and {len(best) - 1} more" if len(best) > 1 else ""
        parts.append(f"x{constant:g}: {sums.columns[best[0]]}{others} (s = {s.max():.3f})")
    return Check("S11c", "argmax s with the constant in its denominator times 0, 1, 10", "; ".join(parts), "stated")


def _other_set(data: Steering, sums: ItemSums, s: Floats) -> Check:
    """Overlap of the best latents on the selection set and on the target; and the choice without prompts that stand in both."""
    question = f"the same latents by s on {data.facts['selection']} and on {data.facts['target']}"
    if data.selects_on_target:
        return Check("S11t", question, "one benchmark is both: see the cross-fit", "not measured")
    target = item_sums(data.target, n_latents=len(data.head))
    s_target = feature_scores(target, np.ones(len(target.inside), dtype=bool))[0]
    whole = np.zeros((2, len(data.head)))
    whole[0, sums.columns], whole[1, target.columns] = s, s_target
    tops = [set(np.argsort(-row, kind="stable")[:TOP].tolist()) for row in whole]
    both = np.intersect1d(sums.columns, target.columns)
    rho = stats.spearmanr(whole[0, both], whole[1, both]).statistic if len(both) > 2 else float("nan")
    shared = {row["prompt"] for row in data.selection.rows} & {row["prompt"] for row in data.target.rows}
    own = {int(item): str(row["prompt"]) for item, row in zip(data.selection.items, data.selection.rows, strict=True)}
    kept = np.array([own[item] not in shared for item in sorted(own)])
    common = int((~kept).sum())
    text = f"{len(tops[0] & tops[1])} of the top {TOP} agree, Spearman {rho:+.2f}; selection prompts that stand in the target: {common}"
    if not kept.all() and (kept & sums.inside).any():
        s_kept, t_kept = feature_scores(sums, kept)
        bound = float(data.facts["bound"])
        latent = choose(s_kept, t_kept, sums.columns, rule=data.facts["rule"], bound=bound, n_latents=sums.n_latents)
        text += f"; without them {data.facts['rule']} chooses {latent}"
    return Check("S11t", question, text, "stated")
