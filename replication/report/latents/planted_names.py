"""Whether the planted judge's names for latents are those that the latents deserve on texts that the judge never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from replication.report.agreement import Booleans, Floats
from replication.report.cells import Listing, PlantedNumber
from replication.report.latents.detection import CONTROL
from replication.report.latents.recovery import Pool, shown
from replication.report.statistics import wilson

# Equal up to rounding: concepts that the same texts carry tie.
SAME = 1e-12


class Named(NamedTuple):
    """How many explained latents have the right name, of how many that could be judged, and how many one fixed name would get."""

    right: int
    judged: int
    by_one_name: int
    name: str
    silent: int


def named(rows: Sequence[Mapping[str, Any]], pool: Pool) -> Named:
    """Names against the concept of largest balanced accuracy on the held-out half, the planted judge's own measure.

    A name is right when no concept fits better. `silent`: latents that fire at none or at all of the held-out texts.
    """
    carried = pool.carried[pool.held_out]
    hits: list[Booleans] = []
    right = silent = 0
    for row in rows:
        activation = (pool.values * (pool.indices == row["latent"])).sum(axis=1)
        scores = _balanced(carried, activation[pool.held_out] > pool.threshold)
        if scores is None:
            silent += 1
            continue
        best = scores >= scores.max() - SAME
        hits.append(best)
        right += row["explanation"] in {name for name, one in zip(pool.names, best, strict=True) if one}
    if not hits:
        return Named(0, 0, 0, "", silent)
    totals = np.stack(hits).sum(axis=0)
    return Named(right, len(hits), int(totals.max()), pool.names[int(totals.argmax())], silent)


def _balanced(carried: Booleans, fires: Booleans) -> Floats | None:
    if not fires.any() or fires.all():
        return None
    return np.asarray((carried[fires].mean(axis=0) + 1 - carried[~fires].mean(axis=0)) / 2, dtype=np.float64)


def arms(rows: Sequence[Mapping[str, Any]], ours: Pool, control: Pool | None) -> dict[str, Named]:
    """The names of our latents, and of the control's where there is one."""
    told = [row for row in rows if row["status"] == "explained"]
    found = {"pretrained": named([row for row in told if not str(row["group"]).startswith(CONTROL)], ours)}
    if control is not None:
        found["frozen random"] = named([row for row in told if str(row["group"]).startswith(CONTROL)], control)
    return {name: one for name, one in found.items() if one.judged}


def name_numbers(found: Mapping[str, Named], *, seed: int) -> list[PlantedNumber]:
    """The share of right names and the share that the most frequent concept alone would get, with Wilson intervals."""
    numbers = []
    for arm, one in found.items():
        for measure, count in (("names", one.right), ("names-by-one-name", one.by_one_name)):
            low, high = wilson(count, one.judged)
            share = {"value": count / one.judged, "low": low / 100, "high": high / 100}
            numbers.append(PlantedNumber(measure=measure, subject=arm, seed=seed, n=one.judged, **share))
    return numbers


def names_listing(found: Mapping[str, Named], numbers: Sequence[PlantedNumber], *, seed: int) -> Listing:
    """Right names of each arm beside what one name for all would get."""
    cells = {(one.subject, one.measure): one for one in numbers}
    rows = [
        (arm, str(one.judged), str(one.silent), f"{one.right}: {shown(cells[arm, 'names'])}",
         f"{one.by_one_name}: {shown(cells[arm, 'names-by-one-name'])}", one.name)
        for arm, one in found.items()
    ]  # fmt: skip
    columns = ("encoder", "latents", "silent", "right names", "by one name for all", "that name")
    return Listing(
        name=f"features-names-seed{seed}",
        title=f"Names of explained latents against planted concepts, seed {seed}",
        columns=columns,
        rows=tuple(rows),
        numeric=columns[1:5],
        notes=(
            "Right: no planted concept fits the latent better (balanced accuracy) on texts of prompts that the explanation never saw. "
            "Chance: the share that the most frequent concept would get as everybody's name. Wilson intervals over latents, 95 %. "
            "Silent: fires at none or all of these texts, so that no name can be judged.",
        ),
    )
