"""Whether the steered latent is the planted refusal: its agreement with the labels, the best latent's, and what it found instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replication.report.agreement import Booleans, Floats, areas, bounds_of, dense, prompt_weights, resampled_areas, told_apart
from replication.report.cells import Listing, PlantedNumber
from replication.report.steering.experiment import Completions, Mask, Steering
from sarm.explain.contexts import hash_of
from sarm.store.json_files import read_facts

# From this area on we call a latent one for the concept. Our own bound, set before any result was seen.
BOUND = 0.8


class Agreement(NamedTuple):
    """The area of a latent for a concept over some replies, with its 95 % interval by bootstrap over prompts."""

    latent: int
    concept: str
    area: float
    low: float
    high: float
    replies: int

    def show(self) -> str:
        """The area with its interval and size."""
        return f"{self.area:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.replies}"


class RuleOnLabels(NamedTuple):
    """What the rule's score s could make of the concept: pairs whose chosen and whose rejected reply carries it, of `pairs`.

    `steered` and `best` are the scores of the two latents, `best_rank` is 1 + latents with a larger one, of `n_latents`.
    """

    chosen: int
    rejected: int
    pairs: int
    steered: float
    best: float
    best_rank: int
    n_latents: int

    @property
    def limit(self) -> float:
        """(c - j) / (c + j): s of a latent that is 1 where the concept is and 0 elsewhere, but for the mean, which shrinks it."""
        return (self.chosen - self.rejected) / (self.chosen + self.rejected)

    def sentence(self, name: str) -> str:
        """The scores in words."""
        return (
            f"Of {self.pairs:,} pairs the chosen reply is {name} in {self.chosen:,} and the rejected one in {self.rejected:,}, so that a "
            f"latent equally active on all of them and nowhere else has s = {self.limit:+.3f} (nearer to 0 by the formula's mean); "
            f"the rule's has {self.steered:+.3f}, the best {self.best:+.3f}, rank {self.best_rank:,} of {self.n_latents:,}."
        )


class PlantedRefusal(NamedTuple):
    """The rule's latent over all of the concept's replies and on the held-out half; the best latent there; what the rule's agrees with.

    `rank`: 1 + latents that agree better over all replies, of `n_latents`. `by_rule`: None where no selected pair carries the concept.
    """

    steered: Agreement
    steered_held_out: Agreement
    best: Agreement
    instead: Agreement | None
    by_rule: RuleOnLabels | None
    rank: int
    n_latents: int

    @property
    def sentence(self) -> str:
        """Whether the rule found a latent for the concept, or what it found instead, or that no latent was found."""
        one, best, name = self.steered, self.best, self.steered.concept
        if one.low >= BOUND:
            return f"The rule found a latent for {name}: latent {one.latent}, AUROC {one.show()}."
        found = f"latent {one.latent} agrees most with {self.instead.concept} (AUROC {self.instead.show()})" if self.instead else (
            f"no planted concept has enough prompts to tell what latent {one.latent} agrees with"
        )  # fmt: skip
        if best.high < BOUND:
            there = f"the best on held-out prompts, {best.latent}, has AUROC {best.show()} < {BOUND}"
            return f"No latent for {name} was found: {there}; {found}."
        if one.high >= BOUND:
            return f"Not decided whether the rule's latent {one.latent} is one for {name}: AUROC {one.show()} includes {BOUND}; {found}."
        if best.low >= BOUND:
            there = f"A latent for {name} exists ({best.latent}, AUROC {best.show()} on held-out prompts)"
            return f"{there}, and the rule did not find it: {found}."
        return (
            f"The rule found no latent for {name} (AUROC {one.show()}): {found}. Not decided whether there is one: "
            f"the best on held-out prompts, {best.latent}, has AUROC {best.show()}."
        )


def planted_refusal(data: Steering, concepts: Path, *, seed: int) -> PlantedRefusal | None:
    """The steered latent against the labels of `concepts.json`; None where too few prompts of a half carry or lack the concept.

    One half of the prompts, by hash, chooses the best latent, and the concept that the steered one agrees with; the other half measures.
    """
    labels = read_facts(concepts, "safety", "items")
    carried_by = _labels(data.target, labels["items"][data.facts["target"]])
    prompts = [str(row["prompt"]) for row in data.target.rows]
    held_out = np.array([hash_of(f"planted/{prompt}") % 2 == 1 for prompt in prompts], dtype=np.bool_)
    concept = f"reply:{labels['safety']['concept']}"
    own = np.array([concept in names for names in carried_by], dtype=np.bool_)
    inside = data.target.inside
    if not told_apart(own[inside, None], [prompt for prompt, kept in zip(prompts, inside, strict=True) if kept], held_out[inside]).all():
        return None
    latents, activations = dense(data.target.indices.astype(np.int64), data.target.values)

    def agreement(latent: int, name: str, carried: Booleans, mask: Mask) -> Agreement:
        activation = data.target.activation(latent)[mask]
        weights = prompt_weights([prompts[place] for place in np.flatnonzero(mask)], seed=seed)
        low, high = bounds_of(resampled_areas(activation, carried[mask], weights))
        area = float(areas(activation[:, None], carried[mask][:, None])[0, 0])
        return Agreement(latent, name, area, low, high, int(mask.sum()))

    chosen = int(latents[areas(activations[inside & ~held_out], own[inside & ~held_out, None])[0].argmax()])
    steered = agreement(data.latent, concept, own, inside)
    all_areas = areas(activations[inside], own[inside, None])[0]
    silent_above = (len(data.head) - len(latents)) if steered.area < 0.5 else 0
    other = _most_alike(data, carried_by, prompts, held_out)
    return PlantedRefusal(
        steered=steered,
        steered_held_out=agreement(data.latent, concept, own, inside & held_out),
        best=agreement(chosen, concept, own, inside & held_out),
        instead=agreement(data.latent, other, np.array([other in names for names in carried_by]), held_out) if other else None,
        by_rule=_by_rule(data, labels["items"][data.facts["selection"]], concept, best=chosen),
        rank=1 + int((all_areas > steered.area).sum()) + silent_above,
        n_latents=len(data.head),
    )


def _by_rule(data: Steering, items: Mapping[str, Any], concept: str, *, best: int) -> RuleOnLabels | None:
    """The rule's score on the pairs on which it chose; `items` are their labels."""
    part = data.selection
    pairs = np.array([int(row["pairs"]) for row in part.rows], dtype=np.int64) * part.inside
    carried = np.array([concept in names for names in _labels(part, items)], dtype=np.bool_)
    chosen, rejected = (int(pairs[carried & side].sum()) for side in (part.chosen, ~part.chosen))
    if not chosen + rejected:
        return None
    return RuleOnLabels(
        chosen=chosen,
        rejected=rejected,
        pairs=int(pairs[part.chosen].sum()),
        steered=float(data.s[data.latent]),
        best=float(data.s[best]),
        best_rank=1 + int((data.s > data.s[best]).sum()),
        n_latents=len(data.s),
    )


def _labels(part: Completions, items: Mapping[str, Any]) -> list[frozenset[str]]:
    """What each completion carries: `reply:` and its own concepts, `prompt:` and its prompt's."""
    found = []
    for row in part.rows:
        item = items[f"{row['subset']}/{row['id']}"]
        reply = {f"reply:{name}" for name in item[row["side"]][row["place"]]}
        found.append(frozenset(reply | {f"prompt:{name}" for name in item["prompt"]}))
    return found


def _most_alike(data: Steering, carried_by: list[frozenset[str]], prompts: list[str], held_out: Booleans) -> str:
    """The concept with which the steered latent agrees most over all completions of the choosing half; empty where none can be told."""
    names = sorted(frozenset().union(*carried_by))
    carried = np.array([[name in carries for name in names] for carries in carried_by], dtype=np.bool_)
    usable = np.flatnonzero(told_apart(carried, prompts, held_out))
    if not len(usable):
        return ""
    activation: Floats = data.target.activation(data.latent)[~held_out, None]
    return names[int(usable[areas(activation, carried[~held_out][:, usable])[:, 0].argmax()])]


def refusal_listing(found: PlantedRefusal, *, name: str, rule: str, seed: int) -> Listing:
    """The agreements, and the sentence that says what follows."""
    told = [
        (f"chosen by {rule}", "all safety replies", found.steered, f"{found.rank:,} of {found.n_latents:,}"),
        ("the same", "held-out prompts", found.steered_held_out, "—"),
        ("best by agreement", "held-out prompts", found.best, "—"),
        *([("what the rule's agrees with most", "all held-out replies", found.instead, "—")] if found.instead else []),
    ]
    rows = tuple(
        (what, str(one.latent), one.concept, where, str(one.replies), f"{one.area:.3f} [{one.low:.3f}, {one.high:.3f}]", rank)
        for what, where, one, rank in told
    )
    columns = ("", "latent", "planted concept", "over", "n", "AUROC", "rank")
    return Listing(
        name=f"{name}-planted-seed{seed}", title=f"The steered latent against the planted concept, seed {seed}", columns=columns,
        rows=rows, numeric=("latent", "n", "AUROC", "rank"),
        notes=(
            found.sentence,
            *([found.by_rule.sentence(found.steered.concept)] if found.by_rule is not None else []),
            "AUROC of the activation at the pooled token; 95 % intervals by bootstrap over prompts. The best latent, and the concept that "
            "the rule's agrees with, are chosen on the other half of the prompts. "
            f"A latent is one for a concept from AUROC {BOUND} on: our bound.",
        ),
    )  # fmt: skip


def refusal_numbers(found: PlantedRefusal, *, seed: int) -> list[PlantedNumber]:
    """The agreements as numbers."""
    told = {"steered-latent": found.steered, "steered-latent-held-out": found.steered_held_out, "best-latent": found.best}
    if found.instead is not None:
        told["steered-agrees-with"] = found.instead
    return [
        PlantedNumber(
            measure=measure,
            subject=f"latent {one.latent}, {one.concept}",
            seed=seed,
            value=one.area,
            low=one.low,
            high=one.high,
            n=one.replies,
        )
        for measure, one in told.items()
    ]
