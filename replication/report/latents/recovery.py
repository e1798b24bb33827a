"""Whether single latents recover a miniature's planted concepts, beside those of a frozen random encoder. Beyond the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from replication.report.agreement import (
    RESAMPLES,
    Booleans,
    Floats,
    areas,
    bounds_of,
    dense,
    prompt_weights,
    resampled_areas,
    told_apart,
)
from replication.report.cells import Listing, PlantedNumber
from sarm.explain.contexts import Origin
from sarm.explain.planted import PlantedConcepts, label_matrix
from sarm.store.json_files import read_facts, understood_facts
from sarm.store.json_lines import read_lines

# Sentences at their own mark; replies at the end of turn, where a reward is pooled.
Scope = Literal["sentence", "reply"]
SCOPES: tuple[Scope, ...] = ("sentence", "reply")
DASH = "—"
MEASURE = (
    "Area under the ROC curve (AUROC) of the best single latent of each concept: chosen on one half of the prompts, measured on the other; "
    "0.5 says nothing, 1 is the concept. Sentences are read at their mark, replies at the end of turn, where the reward is pooled. "
    "95 % intervals by bootstrap over concepts and prompts with the chosen latents kept; differences are paired in both, and where there "
    "are several, seeds are drawn too. Prompts of the two halves differ; a sentence may occur in both."
)


class Pool(NamedTuple):
    """The contexts of a collection that were kept whether or not they activate anything, with what they carry.

    `indices` and `values` `[rows, k]`, `carried` `[rows, names]`, `held_out` and `ends_turn` `[rows]`; `prompts` names each row's item.
    """

    indices: np.ndarray
    values: Floats
    names: list[str]
    carried: Booleans
    prompts: tuple[str, ...]
    held_out: Booleans
    ends_turn: Booleans
    threshold: float


class Best(NamedTuple):
    """A concept's best latent by the first half, its area on the other, and that area in each bootstrap."""

    latent: int
    area: float
    draws: Floats


class Recovered(NamedTuple):
    """One scope of one seed: concept -> best latent of ours, and of the control where there is one; rows and prompts measured on."""

    scope: Scope
    ours: Mapping[str, Best]
    control: Mapping[str, Best]
    rows: int
    prompts: int
    left_out: int


def read_pool(folder: Path, concepts: Path) -> Pool:
    """The pool of an artifact of `collect_contexts`, labelled by a miniature's `concepts.json`."""
    facts = read_facts(folder / "collection.json", "texts", "threshold")
    with understood_facts(concepts):
        labels = PlantedConcepts(read_facts(concepts), facts["texts"])
    with understood_facts(folder / "pool.safetensors", also=(SafetensorError, OSError)):
        tensors = load_file(folder / "pool.safetensors")
    rows = [row for _, row in read_lines(folder / "pool.jsonl")]
    texts, tokens = [row.pop("context") for row in rows], [row.pop("token") for row in rows]
    origins = [Origin(**row) for row in rows]
    names, carried = label_matrix([labels.of(text, origin) for text, origin in zip(texts, origins, strict=True)])
    return Pool(
        indices=tensors["indices"].astype(np.int64),
        values=tensors["values"].astype(np.float64),
        names=names,
        carried=carried,
        prompts=tuple(origin.item for origin in origins),
        held_out=np.array([origin.half == "held-out" for origin in origins], dtype=np.bool_),
        ends_turn=np.array([token.strip().startswith("<|") for token in tokens], dtype=np.bool_),
        threshold=float(facts["threshold"]),
    )


def recovered(ours: Pool, control: Pool | None, scope: Scope, *, seed: int) -> Recovered | None:
    """The best latents of a scope; None where no concept has enough prompts of each kind in each half.

    Ours and the control are resampled alike: by the same prompts, as far as they share them.
    """
    found = _best(ours, scope, seed=seed)
    beside = _best(control, scope, seed=seed) if control is not None else {}
    both = [name for name in found if control is None or name in beside]
    if not both:
        return None
    rows = _rows(ours, scope)
    measured = rows & ours.held_out
    carried = ours.carried[rows][:, [name.startswith(f"{scope}:") for name in ours.names]]
    return Recovered(
        scope=scope,
        ours={name: found[name] for name in both},
        control={name: beside[name] for name in both if beside},
        rows=int(measured.sum()),
        prompts=len({prompt for prompt, kept in zip(ours.prompts, measured, strict=True) if kept}),
        left_out=int(carried.any(axis=0).sum()) - len(both),
    )


def _rows(pool: Pool, scope: Scope) -> Booleans:
    return pool.ends_turn if scope == "reply" else ~pool.ends_turn


def _best(pool: Pool, scope: Scope, *, seed: int) -> dict[str, Best]:
    rows = _rows(pool, scope)
    held_out = pool.held_out[rows]
    prompts = np.array(pool.prompts)[rows]
    mine = np.array([name.startswith(f"{scope}:") for name in pool.names], dtype=np.bool_)
    names = [name for name, kept in zip(pool.names, mine, strict=True) if kept]
    carried = pool.carried[rows][:, mine]
    latents, activations = dense(pool.indices[rows], pool.values[rows])
    usable = np.flatnonzero(told_apart(carried, prompts.tolist(), held_out))
    if not len(usable) or not len(latents):
        return {}
    chosen = areas(activations[~held_out], carried[~held_out][:, usable]).argmax(axis=1)
    weights = prompt_weights(prompts[held_out].tolist(), seed=seed)
    found = {}
    for concept, place in zip(usable.tolist(), chosen.tolist(), strict=True):
        activation, own = activations[held_out, place], carried[held_out, concept]
        area = float(areas(activation[:, None], own[:, None])[0, 0])
        found[names[concept]] = Best(int(latents[place]), area, resampled_areas(activation, own, weights))
    return found


def mean_draws(arms: Sequence[Mapping[str, Best]], *, seed: int) -> list[Floats]:
    """The mean area over concepts in each bootstrap of concepts and prompts, one array an arm; all arms draw the same concepts."""
    names = list(arms[0])
    picked = np.random.default_rng(seed + 1).integers(len(names), size=(RESAMPLES, len(names)))
    stacked = [np.stack([arm[name].draws for name in names], axis=1) for arm in arms]
    return [np.nanmean(np.take_along_axis(one, picked, axis=1), axis=1) for one in stacked]


def recovery_numbers(found: Mapping[int, Recovered], *, seed: int = 0) -> list[PlantedNumber]:
    """Ours, the random encoder's and the difference of one scope: for each seed, then over all where there are several."""
    numbers: list[PlantedNumber] = []
    values: dict[str, list[float]] = {}
    draws: dict[str, list[Floats]] = {}
    for training_seed, one in found.items():
        arms = [one.ours, one.control] if one.control else [one.ours]
        means = [float(np.mean([best.area for best in arm.values()])) for arm in arms]
        drawn = mean_draws(arms, seed=seed)
        told = [("recovery", means[0], drawn[0])]
        if one.control:
            told += [("recovery-random", means[1], drawn[1]), ("recovery-difference", means[0] - means[1], drawn[0] - drawn[1])]
        for measure, value, each in told:
            values.setdefault(measure, []).append(value)
            draws.setdefault(measure, []).append(each)
            numbers.append(_number(measure, one.scope, training_seed, value, each, n=len(one.ours)))
    if len(found) > 1:
        picked = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
        scope = next(iter(found.values())).scope
        for measure in (name for name, each in values.items() if len(each) == len(found)):
            over = np.stack(draws[measure])[picked, np.arange(RESAMPLES)[:, None]].mean(axis=1)
            numbers.append(_number(measure, scope, None, float(np.mean(values[measure])), over, n=len(found)))
    return numbers


def _number(measure: str, scope: Scope, seed: int | None, value: float, draws: Floats, *, n: int) -> PlantedNumber:
    low, high = bounds_of(draws)
    return PlantedNumber(measure=measure, subject=scope, seed=seed, value=value, low=low, high=high, n=n)


def recovery_listing(numbers: Sequence[PlantedNumber], found: Mapping[tuple[int, str], Recovered]) -> Listing:
    """Mean areas of each seed and scope, and what they rest on."""
    cells = {(one.seed, one.subject, one.measure): one for one in numbers}
    rows = []
    for seed, scope in dict.fromkeys((one.seed, one.subject) for one in numbers):
        one = found.get((seed, scope)) if seed is not None else None
        told = [shown(cells.get((seed, scope, measure))) for measure in ("recovery", "recovery-random", "recovery-difference")]
        size = f"{len(one.ours)} ({one.left_out})" if one else DASH
        basis = f"{one.rows:,} / {one.prompts:,}" if one else DASH
        rows.append((f"seed {seed}" if seed is not None else "all seeds", scope, size, basis, *told))
    columns = ("", "read at", "concepts (too rare)", "texts / prompts", "pretrained", "frozen random", "difference")
    return Listing(
        name="features-recovery",
        title="Recovery of planted concepts by single latents, AUROC",
        columns=columns,
        rows=tuple(rows),
        numeric=columns[2:],
        notes=(MEASURE,),
    )


def concepts_listing(found: Sequence[Recovered], *, seed: int) -> Listing:
    """Each concept with its best latent."""
    rows = []
    for one in found:
        for name, best in one.ours.items():
            other = one.control.get(name)
            beside = (str(other.latent), _area(other)) if other is not None else (DASH, DASH)
            rows.append((name, str(best.latent), _area(best), *beside))
    columns = ("concept", "latent", "AUROC", "random latent", "random AUROC")
    return Listing(
        name=f"features-concepts-seed{seed}",
        title=f"Best latent of each planted concept, seed {seed}",
        columns=columns,
        rows=tuple(rows),
        numeric=columns[1:],
        notes=("Intervals by bootstrap over prompts.",),
    )


def _area(best: Best) -> str:
    low, high = bounds_of(best.draws)
    return f"{best.area:.3f} [{low:.3f}, {high:.3f}]"


def shown(one: PlantedNumber | None) -> str:
    """A number with its interval; a dash where there is none."""
    if one is None:
        return DASH
    sign = "+" if one.measure.endswith("-difference") else ""
    return f"{one.value:{sign}.3f} [{one.low:{sign}.3f}, {one.high:{sign}.3f}]"
