"""The paper's claims from what the store has: one verdict a protocol, and where protocols differ in it, that they do.

Where a profile replaces all that two protocols differ in, their jobs are the same, and they are one computation and not two opinions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replication.recipes.jobs_needed import Recipe
from replication.report.claims.definitions import Claim, ClaimFile, ClaimResult, Effect, Outcome
from replication.report.claims.own import Arms, OwnFound, evaluated, judged, rows_needed
from replication.report.claims.paired_items import credits_in_store
from replication.report.claims.published import across_protocols
from replication.report.latents.detection import accuracies, difference
from replication.report.latents.features import explanations
from sarm.store.artifacts import ArtifactStore

# Experiment -> its recipe, under one protocol.
Recipes = Mapping[str, Recipe]
JobKeys = tuple[str, ...]


@dataclass
class ClaimsInStore:
    """Evaluates each claim once for each set of jobs that it rests on."""

    file: ClaimFile
    store: ArtifactStore
    arms: dict[JobKeys, Arms] = field(default_factory=dict)
    found: dict[tuple[str, JobKeys], OwnFound | None] = field(default_factory=dict)

    def results(self, protocols: Mapping[str, Recipes], *, analogue: bool) -> dict[str, tuple[ClaimResult, ...]]:
        """Of each claim that the store bears on: a result a protocol (equal ones under one label), then one across them if they differ."""
        by_protocol = {}
        for protocol, recipes in protocols.items():
            found = {claim.id: one for claim in self.file.claims if (one := self.evaluation(claim, recipes)) is not None}
            by_protocol[protocol] = judged(self.file.claims, found, protocol=protocol, analogue=analogue, alpha=self.file.alpha)
        results: dict[str, tuple[ClaimResult, ...]] = {}
        for claim in self.file.claims:
            known = {protocol: one[claim.id] for protocol, one in by_protocol.items() if claim.id in one}
            if known:
                merged = self._merged(known, {protocol: job_keys(claim, protocols[protocol]) for protocol in known})
                results[claim.id] = (*merged.values(), *_where_they_differ(merged))
        return results

    def missing(self, recipes: Recipes) -> dict[str, list[str]]:
        """Experiment -> what of it a claim needs and the store lacks."""
        absent: dict[str, list[str]] = {}
        for claim in self.file.claims:
            if claim.experiment and self.evaluation(claim, recipes) is None:
                known = self._arms(recipes[claim.experiment], job_keys(claim, recipes))
                lacking = [row for row in rows_needed(claim) if row not in known]
                absent.setdefault(claim.experiment, []).extend(lacking or [f"its results for claim {claim.id}"])
        return {name: list(dict.fromkeys(lacking)) for name, lacking in absent.items()}

    def evaluation(self, claim: Claim, recipes: Recipes) -> OwnFound | None:
        """A claim before the adjustment over all; None where the store lacks something that it needs."""
        if not claim.experiment or not self.store.root.is_dir():
            return None
        recipe, keys = recipes[claim.experiment], job_keys(claim, recipes)
        if (claim.id, keys) not in self.found:
            self.found[claim.id, keys] = self._evaluate(claim, recipe, keys)
        return self.found[claim.id, keys]

    def _merged(self, known: Mapping[str, ClaimResult], keys: Mapping[str, JobKeys]) -> dict[str, ClaimResult]:
        """Results by label: protocols with the same jobs and the same verdict share one."""
        same: dict[tuple[JobKeys, str], list[str]] = {}
        for protocol, one in known.items():
            same.setdefault((keys[protocol], one.outcome), []).append(protocol)
        labelled = {", ".join(names): known[names[0]] for names in same.values()}
        return {label: one.model_copy(update={"protocol": label}) for label, one in labelled.items()}

    def _evaluate(self, claim: Claim, recipe: Recipe, keys: JobKeys) -> OwnFound | None:
        if claim.kind == "steering":
            return _steering(recipe, self.store)
        if claim.kind == "detection":
            return _detection(claim, recipe, self.store)
        found = evaluated(claim, self._arms(recipe, keys), alpha=self.file.alpha)
        other = _other_changes(claim, recipe) if found is not None else ()
        if found is None or not other:
            return found
        why = f"the rows differ in {', '.join(other)} too, so that this is not the claim's difference"
        return found._replace(outcome="INCONCLUSIVE", detail=f"{found.detail}; {why}", p_value=None)

    def _arms(self, recipe: Recipe, keys: JobKeys) -> Arms:
        if keys not in self.arms:
            name = recipe.setting.experiment.name
            rows = dict.fromkeys(row for claim in self.file.claims if claim.experiment == name for row in rows_needed(claim))
            self.arms[keys] = credits_in_store(recipe, self.store, list(rows)) if self.store.root.is_dir() else {}
        return self.arms[keys]


def job_keys(claim: Claim, recipes: Recipes) -> JobKeys:
    """The keys of all jobs at the ends of the claim's experiment."""
    return tuple(job.key for job in recipes[claim.experiment].jobs)


def _other_changes(claim: Claim, recipe: Recipe) -> tuple[str, ...]:
    """In what else the claim's rows are trained differently: a protocol may give one of them what the other cannot have."""
    models = {one.row.name: one.model.config.model_dump() for one in recipe.trainings if one.model is not None}
    ours = models.get(claim.ours, {})
    found = {name for control in claim.controls for name, value in models.get(control, {}).items() if ours.get(name) != value}
    return tuple(sorted(found - set(claim.apart))) if claim.apart else ()


def _where_they_differ(by_label: Mapping[str, ClaimResult]) -> tuple[ClaimResult, ...]:
    across = across_protocols(by_label)
    return (across,) if across.outcome == "SPEC-DEPENDENT" else ()


def _steering(recipe: Recipe, store: ArtifactStore) -> OwnFound | None:
    """C6: S3, S5, S6 and S8 all pass, with every seed. An intersection of tests, so no p value of its own to adjust.

    Contradicted where, with every seed, even the upper bound of the shift is below the smallest that counts. A latent that was chosen
    on the target itself counts as cross-fitted throughout.
    """
    jobs = [one.steering for one in recipe.trainings]
    present = [(one.seed, one.steering) for one in recipe.trainings if one.steering is not None and store.has(one.steering)]
    if not jobs or len(present) < len(jobs):
        return None
    # Loaded here: claims about accuracies need neither numpy nor scipy's distributions.
    from replication.report.steering.checks import CLAIM_CHECKS, SMALLEST_SHIFT, checks, d_of, decisive_change  # noqa: PLC0415
    from replication.report.steering.experiment import read_steering  # noqa: PLC0415

    passes = dict.fromkeys(CLAIM_CHECKS, 0)
    shifts = []
    for seed, job in present:
        data = read_steering(store.path(job))
        outcomes = {check.name: check.outcome for check in checks(data, seed=seed)}
        shifts.append(d_of(data, decisive_change(data, seed=seed), "T", level=0.95, seed=seed))
        for name in CLAIM_CHECKS:
            passes[name] += outcomes.get(f"{name}x", outcomes[name]) == "pass"
    outcome: Outcome = "INCONCLUSIVE"
    if all(count == len(present) for count in passes.values()):
        outcome = "SUPPORTED"
    elif passes["S3"] == len(present):
        outcome = "DIRECTION ONLY"
    elif all(one.high < SMALLEST_SHIFT for one in shifts):
        outcome = "CONTRADICTED"
    passed = ", ".join(f"{name} {count}/{len(present)}" for name, count in passes.items())
    return OwnFound(outcome, f"passed: {passed}; d on T {', '.join(one.show() for one in shifts)}", None, len(present))


def _detection(claim: Claim, recipe: Recipe, store: ArtifactStore) -> OwnFound | None:
    """C7: detection accuracy of explanations minus that of a frozen random encoder, lower bound above `claim.least` points."""
    trainings = [one for one in recipe.trainings if one.row.encoder == "sae"]
    arms = [accuracies(explanations(one, store)) for one in trainings]
    known: Sequence = [one for one in arms if one is not None]
    if not known or len(known) < len(arms):
        return None
    found = difference(known, beyond=claim.least)
    if not found.bounded:
        detail = f"detection {found.estimate:+.2f} points over a frozen random encoder; of one latent, which tells no interval"
        return OwnFound("INCONCLUSIVE", detail, found.p_value, found.seeds)
    outcome: Outcome = "INCONCLUSIVE"
    if found.low > claim.least:
        outcome = "SUPPORTED"
    elif found.high < claim.least:
        outcome = "CONTRADICTED"
    elif found.low > 0:
        outcome = "DIRECTION ONLY"
    detail = f"detection {found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points over a frozen random encoder"
    effect = Effect(
        label="detection over a random encoder", estimate=found.estimate, low=found.low, high=found.high, above=claim.least
    )
    return OwnFound(outcome, f"{detail}; more than {claim.least:g} count", found.p_value, found.seeds, (effect,))
