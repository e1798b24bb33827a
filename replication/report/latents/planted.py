"""A miniature's planted truth beside its latents: which contexts there are to compare with, and the blocks made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from replication.recipes.jobs_needed import Recipe, Training
from replication.report.cells import Listing, PlantedNumber
from replication.report.latents.planted_names import arms, name_numbers, names_listing
from replication.report.latents.recovery import (
    SCOPES,
    Pool,
    Recovered,
    concepts_listing,
    read_pool,
    recovered,
    recovery_listing,
    recovery_numbers,
)
from sarm.store.artifacts import ArtifactStore

Explained = Mapping[int, Sequence[Mapping[str, Any]]]


class PlantedTruth(NamedTuple):
    """Blocks, numbers, and what is absent and why."""

    listings: tuple[Listing, ...]
    numbers: tuple[PlantedNumber, ...]
    notes: tuple[str, ...]


class Pools(NamedTuple):
    """The labelled contexts of one seed: of the pretrained SAE, and of the frozen random encoder where there is one."""

    ours: Pool
    control: Pool | None


def planted_truth(recipe: Recipe, store: ArtifactStore, explained: Explained, *, command: str) -> PlantedTruth:
    """Recovery of planted concepts for each seed, and the explanations' names against them.

    `explained`: seed -> lines of `explanations.jsonl`. Nothing but a reason where the texts are no miniature's or are not there yet.
    """
    pools: dict[int, Pools] = {}
    notes: list[str] = []
    controls = {one.seed: one for one in recipe.trainings if one.row.encoder == "random_sae"}
    for training in (one for one in recipe.trainings if one.row.encoder == "sae"):
        ours = _pool(training, store, command=command)
        if isinstance(ours, str):
            notes.append(f"Planted concepts, seed {training.seed}: not measured, {ours}.")
            continue
        other = controls.get(training.seed)
        control = _pool(other, store, command=command) if other is not None else "the row is left out"
        if isinstance(control, str):
            notes.append(f"Planted concepts, seed {training.seed}: the frozen random encoder is not measured, {control}.")
        pools[training.seed] = Pools(ours, None if isinstance(control, str) else control)
    recovery = _recovery(pools)
    names = _names(pools, explained, recipe)
    return PlantedTruth(
        listings=(*recovery.listings, *names.listings), numbers=(*recovery.numbers, *names.numbers),
        notes=(*dict.fromkeys(notes), *recovery.notes, *names.notes),
    )  # fmt: skip


def _pool(training: Training, store: ArtifactStore, *, command: str) -> Pool | str:
    """The labelled pool of a training's contexts, or why there is none."""
    job = training.contexts
    if job is None:
        return training.missing or "no contexts are collected"
    texts = job.inputs["texts"]
    if texts.kind != "make_miniature":
        return "real texts have no planted concepts"
    absent = store.absence(job, command=command) or store.absence(texts, command=command)
    if absent:
        return absent
    return read_pool(store.path(job), Path(store.path(texts)) / "concepts.json")


def _recovery(pools: Mapping[int, Pools]) -> PlantedTruth:
    found: dict[tuple[int, str], Recovered] = {}
    notes = []
    for seed, one in pools.items():
        for scope in SCOPES:
            got = recovered(one.ours, one.control, scope, seed=seed)
            if got is None:
                notes.append(f"Recovery at the {scope}, seed {seed}: not measured, no concept has enough prompts in both halves.")
            else:
                found[seed, scope] = got
    numbers = [
        number
        for scope in SCOPES
        for number in recovery_numbers({seed: got for (seed, name), got in found.items() if name == scope})
    ]  # fmt: skip
    if not found:
        return PlantedTruth((), (), tuple(notes))
    seeds = dict.fromkeys(seed for seed, _ in found)
    each = [concepts_listing([got for (number, _), got in found.items() if number == seed], seed=seed) for seed in seeds]
    return PlantedTruth((recovery_listing(numbers, found), *each), tuple(numbers), tuple(notes))


def _names(pools: Mapping[int, Pools], explained: Explained, recipe: Recipe) -> PlantedTruth:
    """The planted judge's names; another judge answers in words of its own, which equal no concept's name."""
    judges = {one.seed: getattr(one.explanation.config, "judge", "") for one in recipe.trainings if one.explanation is not None}
    listings, numbers, notes = [], [], []
    for seed, one in pools.items():
        rows = explained.get(seed, ())
        if judges.get(seed) != "planted":
            notes.append(f"Names of latents, seed {seed}: not compared with planted concepts, the explanations are in a judge's own words.")
            continue
        found = arms(rows, one.ours, one.control)
        if not found:
            notes.append(f"Names of latents, seed {seed}: not compared, no explained latent fires at some of the held-out texts.")
            continue
        told = name_numbers(found, seed=seed)
        listings.append(names_listing(found, told, seed=seed))
        numbers += told
    return PlantedTruth(tuple(listings), tuple(numbers), tuple(notes))
