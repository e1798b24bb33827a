"""How well the activation of a latent tells what carries a planted concept from what does not. Arrays in, arrays out.

The measure is the area under the ROC curve: 1 where every carrier activates the latent more than every other row, 0.5 for a latent that
says nothing (also one that never fires). A latent is chosen on one half of the prompts and measured on the other, since the largest of
thousands of areas would flatter on the rows that it was chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from replication.report.statistics import Bounds

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
RESAMPLES = 2000
# Fewest prompts of each kind, in each half, for an area that is worth telling.
LEAST_PROMPTS = 5


def areas(activations: Floats, carried: Booleans) -> Floats:
    """The area of each latent for each concept, `[concepts, latents]`; NaN where all rows carry a concept or none does.

    Shapes: activations `[rows, latents]`, carried `[rows, concepts]`.
    """
    positives = carried.sum(axis=0)[:, None].astype(np.float64)
    negatives = len(carried) - positives
    sums = carried.T.astype(np.float64) @ rankdata(activations, axis=0)
    wins = sums - positives * (positives + 1) / 2
    return np.divide(wins, positives * negatives, out=np.full(wins.shape, np.nan), where=positives * negatives > 0)


def prompt_weights(prompts: Sequence[str], *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """How often each row stands in each bootstrap of its prompts, `[resamples, rows]`: rows of one prompt come and go together."""
    names, place = np.unique(np.array(prompts), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return np.asarray(drawn[:, place], dtype=np.float64)


def resampled_areas(activation: Floats, carried: Booleans, weights: Floats) -> Floats:
    """The area of one latent for one concept in each bootstrap, `[resamples]`; NaN where a bootstrap has rows of one kind alone.

    Shapes: activation and carried `[rows]`, weights `[resamples, rows]`.
    """
    order = np.argsort(activation, kind="stable")
    ordered, own = activation[order], carried[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sorted_weights = weights[:, order]
    positive = np.add.reduceat(sorted_weights * own, starts, axis=1)
    negative = np.add.reduceat(sorted_weights * ~own, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    wins = (positive * (below + negative / 2)).sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)


def bounds_of(draws: Floats) -> Bounds:
    """The 95 % interval of bootstrap draws."""
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return Bounds(low=float(low), high=float(high))


def told_apart(carried: Booleans, prompts: Sequence[str], held_out: Booleans) -> Booleans:
    """Concepts that enough prompts of each half carry, and enough do not, `[concepts]`. Shapes: carried `[rows, concepts]`."""
    names = np.array(prompts)
    enough = np.ones(carried.shape[1], dtype=np.bool_)
    for half in (held_out, ~held_out):
        for kind in (carried[half], ~carried[half]):
            counts = [len(np.unique(names[half][kind[:, column]])) for column in range(carried.shape[1])]
            enough &= np.array(counts, dtype=np.int64) >= LEAST_PROMPTS
    return enough


def dense(indices: npt.NDArray[np.int64], values: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The latents that fire in some row, in order, and their activations, `[rows, latents]`. Shapes: indices and values `[rows, k]`."""
    columns = np.unique(indices[values > 0]).astype(np.int64)
    found = np.zeros((len(indices), len(columns)))
    rows, kept = np.nonzero(values > 0)
    found[rows, np.searchsorted(columns, indices[rows, kept])] = values[rows, kept]
    return columns, found
