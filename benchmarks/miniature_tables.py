"""Levels and spread of the miniature's models over seeds and languages, against the bounds that it was built to keep."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import NamedTuple

from miniature_runs import BEST_OF_4, COLUMNS, PAIRS, SARMS, SCALAR, SURFACE, markdown, mean

from sarm.data.preferences import Preference, read_jsonl
from sarm.metrics.ties import TiesRow, ties_score

LOW, HIGH, ENOUGH = 45.0, 92.0, 4
CHANCE, SURFACE_LIMIT, TIES_ABOVE = 25.0, 5.0, 20.0
MOST_DEVIATION = {"Overall": 2.0} | dict.fromkeys((*BEST_OF_4, "Ties"), 5.0)
TIES_DRAWS = 1000

# Language -> model -> column -> percent for each seed.
Found = Mapping[int, Mapping[str, Mapping[str, Sequence[float]]]]


class Simulated(NamedTuple):
    """A mean over draws and its standard error, in percent."""

    value: float
    standard_error: float


def random_ties(folder: Path, *, draws: int = TIES_DRAWS, seed: int = 0) -> Simulated:
    """The official Ties score of rewards drawn from the standard normal distribution, on the language's own items."""
    rows = [item for item in read_jsonl(folder / "rewardbench2.jsonl", Preference) if item.subset == "Ties"]
    draw = random.Random(seed)
    scores = []
    for _ in range(draws):
        rewarded = [TiesRow(row.id, len(row.chosen), [draw.gauss(0, 1) for _ in (*row.chosen, *row.rejected)]) for row in rows]
        scores.append(100 * ties_score(rewarded).overall)
    return Simulated(mean(scores), stdev(scores) / math.sqrt(draws))


def deviation_interval(values: Sequence[float], *, alpha: float = 0.05) -> tuple[float, float]:
    """The interval of a normal distribution's standard deviation (chi-square with n - 1 degrees of freedom)."""
    from scipy import stats  # noqa: PLC0415 - only where there are two seeds

    free = len(values) - 1
    square = free * stdev(values) ** 2
    low, high = (square / float(stats.chi2.ppf(share, free)) for share in (1 - alpha / 2, alpha / 2))
    return math.sqrt(low), math.sqrt(high)


def said(holds: bool) -> str:
    """Yes or NO, the latter to be seen."""
    return "yes" if holds else "NO"


def levels(found: Found, ties: Mapping[int, Simulated]) -> tuple[str, dict[str, bool]]:
    """The table of means over seeds, and which bounds hold."""
    rows, holds = [], {}
    for language, models in found.items():
        for model in (SCALAR, *SARMS):
            means = {column: mean(models.get(model, {}).get(column, ())) for column in (*COLUMNS, PAIRS)}
            inside = sum(LOW <= means[column] <= HIGH for column in BEST_OF_4)
            above = means["Ties"] - ties[language].value
            holds[f"informative: language {language}, {model}"] = inside >= ENOUGH and above >= TIES_ABOVE
            numbers = [f"{means[column]:.1f}" for column in (*COLUMNS, PAIRS)]
            bounds = [f"{inside} of 5, {said(inside >= ENOUGH)}", f"{above:+.1f}, {said(above >= TIES_ABOVE)}"]
            rows.append([str(language), model, *numbers, *bounds])
    head = ["language", "model", *COLUMNS, PAIRS, f"subsets from {LOW:g} to {HIGH:g}", f"Ties above random (>= {TIES_ABOVE:g})"]
    return markdown(head, rows), holds


def surface(found: Found) -> tuple[str, dict[str, bool]]:
    """What length and a bag of words reach: within 5 points of chance on each best-of-4 subset."""
    rows, holds = [], {}
    for language, models in found.items():
        for model in SURFACE:
            means = {column: mean(models.get(model, {}).get(column, ())) for column in COLUMNS}
            off = max((means[column] - CHANCE for column in BEST_OF_4), key=abs)
            holds[f"surface: language {language}, {model}"] = all(abs(means[one] - CHANCE) <= SURFACE_LIMIT for one in BEST_OF_4)
            kept = said(holds[f"surface: language {language}, {model}"])
            rows.append([str(language), model, *(f"{means[column]:.1f}" for column in COLUMNS), f"{off:+.1f}, {kept}"])
    return markdown(["language", "model", *COLUMNS, f"farthest from {CHANCE:g} (<= {SURFACE_LIMIT:g})"], rows), holds


def language_facts(ties: Mapping[int, Simulated], shared: Mapping[int, int]) -> tuple[str, dict[str, bool]]:
    """The random scorer's Ties, and prompts in two files."""
    rows = [
        [str(language), f"{one.value:.2f} ± {one.standard_error:.2f}", str(TIES_DRAWS), str(shared[language])]
        for language, one in ties.items()
    ]
    head = ["language", "Ties of random rewards ± standard error", "draws", "prompts in two files (must be 0)"]
    return markdown(head, rows), {f"no prompt in two files: language {language}": not count for language, count in shared.items()}


def spread(found: Found) -> tuple[str, dict[str, bool]]:
    """The standard deviation over seeds with its 95 % interval; a model that was not measured keeps no bound."""
    rows, holds = [], {}
    if all(len(values) < 2 for models in found.values() for columns in models.values() for values in columns.values()):
        return "One seed has no spread.", {}
    for language, models in found.items():
        for model in (SCALAR, *SARMS):
            seeds = {column: models.get(model, {}).get(column, ()) for column in MOST_DEVIATION}
            kept = all(len(values) > 1 and stdev(values) <= MOST_DEVIATION[column] for column, values in seeds.items())
            holds[f"stable: language {language}, {model}"] = kept
            rows.append([str(language), model, *(deviation_text(values, MOST_DEVIATION[one]) for one, values in seeds.items()), said(kept)])
    head = ["language", "model", *(f"{column} (<= {most:g})" for column, most in MOST_DEVIATION.items()), "all"]
    return markdown(head, rows), holds


def deviation_text(values: Sequence[float], most: float) -> str:
    """A deviation with its interval, and NO where it is too large."""
    if len(values) < 2:
        return "not measured"
    low, high = deviation_interval(values)
    return f"{stdev(values):.1f} [{low:.1f}, {high:.1f}]" + ("" if stdev(values) <= most else " NO")
