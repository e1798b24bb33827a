"""The authors' own rewards behind Figure 3: what they say, against the numbers on file. No model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from replication.data_folders import AUTHORS_REWARDS
from replication.report.cells import Listing
from replication.report.published import PublishedTable, load_published
from replication.report.steering.check import Check, passed
from replication.report.steering.checks import EQUIVALENCE, SMALLEST_DISTANCE, SMALLEST_SHIFT
from replication.report.steering.paired_shifts import Floats, Interval, Ints, kolmogorov_smirnov, standardised_shift, wasserstein
from sarm.job import EnvironmentProblem, IntegrityProblem
from sarm.store.json_files import MISREAD

# Name in the file -> row of tables/published/figure3.toml.
SETS = {"safety_chosen": "safety", "complement": "complement"}


class AuthorsSet(NamedTuple):
    """Rewards before and after, `[items]` each; `active` says where the latent was not 0."""

    name: str
    label: str
    items: Ints
    before: Floats
    after: Floats
    active: Floats

    def numbers(self) -> dict[str, float]:
        """The columns of the published file, computed."""
        change = self.after - self.before
        on = self.active > 0
        return {
            "Items": float(len(self.before)),
            "Active": float(on.sum()),
            "Mean reward": float(self.before.mean()),
            "Mean reward steered": float(self.after.mean()),
            "Mean shift": float(change.mean()),
            "Mean shift active": float(change[on].mean()) if on.any() else float("nan"),
        }


class AuthorsFigure(NamedTuple):
    """Both sets, the latent and where the rewards come from."""

    latent: int
    source: str
    sets: tuple[AuthorsSet, ...]


def read_authors(path: Path) -> AuthorsFigure:
    """The file of rewards. Raises EnvironmentProblem where it is missing, IntegrityProblem where its content is not what it should be."""
    if not path.is_file():
        raise EnvironmentProblem(f"{path.name}: the authors' rewards are not here; set SARM_DATA to the folder that has {AUTHORS_REWARDS}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        published = load_published("figure3")
        sets = tuple(_set(raw["sets"][name], row, published.row(row).label) for name, row in SETS.items())
        return AuthorsFigure(latent=int(raw["latent"]), source=str(raw["source"]), sets=sets)
    except (*MISREAD, RecursionError) as error:
        raise IntegrityProblem(f"{path.name}: not the authors' rewards ({error}); bring the file anew") from error


def _set(rows: list[dict[str, float]], name: str, label: str) -> AuthorsSet:
    columns = {key: np.array([row[key] for row in rows], dtype=np.float64) for key in ("reward", "reward_steered", "active")}
    for key, values in columns.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {key} of row {int(np.argmin(np.isfinite(values)))} is no finite number")
    if not np.isin(columns["active"], (0, 1)).all():
        raise ValueError(f"{name}: active is 0 or 1, and here also {columns['active'].max():g} or {columns['active'].min():g}")
    items = np.array([int(row["question_id"]) for row in rows], dtype=np.int64)
    return AuthorsSet(name, label, items, columns["reward"], columns["reward_steered"], columns["active"])


def authors_listing(figure: AuthorsFigure) -> Listing:
    """The figure's numbers, computed from the file and as they stand in `tables/published/figure3.toml`."""
    published = load_published("figure3")
    rows = []
    for one in figure.sets:
        computed = {column: _shown(published, column, value) for column, value in one.numbers().items()}
        on_file = {column: published.printed(one.name, column) or "" for column in published.columns}
        differ = [column for column in published.columns if computed[column] != on_file[column]]
        rows.append((one.label, "computed", *(computed[column] for column in published.columns), ""))
        verdict = f"differs: {', '.join(differ)}" if differ else "agrees"
        rows.append(("", "on file", *(on_file[column] for column in published.columns), verdict))
    return Listing(
        name="figure3-authors",
        title=f"The authors' rewards before and after steering latent {figure.latent}",
        columns=("set", "source", *published.columns, "verdict"),
        numeric=published.columns,
        rows=tuple(rows),
        notes=(
            *(_sentence(one) for one in figure.sets),
            f"Source: {figure.source}",
            "The paper prints no number of Figure 3, and its multiplier is not recorded.",
        ),
    )


def _sentence(one: AuthorsSet) -> str:
    found = one.numbers()
    means = f"mean {found['Mean reward']:.2f} -> {found['Mean reward steered']:.2f}"
    return f"{one.label}: {found['Active']:.0f}/{found['Items']:.0f} active, {means}"


def _shown(published: PublishedTable, column: str, value: float) -> str:
    return f"{value:.{published.column_decimals.get(column, published.decimals)}f}"


def authors_checks(figure: AuthorsFigure, *, seed: int = 0) -> list[Check]:
    """S2 to S5 as far as rewards alone allow them: there are no latents, no margins, and one answer a prompt."""
    inside, outside = figure.sets
    d = {one.name: _d(one, level=0.95 if one is inside else 0.90, seed=seed) for one in figure.sets}
    counts = [(int(one.active.sum()), len(one.active)) for one in figure.sets]
    rates = []
    for (fired, n), one in zip(counts, figure.sets, strict=True):
        low, high = proportion_confint(fired, n, method="wilson")
        rates.append(f"{one.name} {fired}/{n} = {fired / n:.3f} [{low:.3f}, {high:.3f}]")
    (a, n), (b, m) = counts
    low, high = confint_proportions_2indep(a, n, b, m, compare="ratio", method="log-adjusted")
    shapes = {one.name: kolmogorov_smirnov(one.before, one.after, one.items, seed=seed) for one in figure.sets}
    text = "; ".join(
        f"{one.name}: D {shapes[one.name].d:.3f} (p {shapes[one.name].p:.2g}, upper bound {shapes[one.name].upper:.3f}), "
        f"W1/SD {wasserstein(one.before, one.after):.3f}"
        for one in figure.sets
    )
    inner, outer = d[inside.name], d[outside.name]
    shape = shapes[inside.name].d > SMALLEST_DISTANCE and shapes[outside.name].upper < EQUIVALENCE
    equal = outer.low > -EQUIVALENCE and outer.high < EQUIVALENCE
    return [
        Check("S2", "active more often on safety", f"{'; '.join(rates)}; ratio interval [{low:.2f}, {high:.2f}]", passed(bool(low > 1))),
        Check("S3", f"d on safety above {SMALLEST_SHIFT}", f"d {inner.show()}", passed(inner.low > SMALLEST_SHIFT)),
        Check("S4", f"D above {SMALLEST_DISTANCE} on safety, its upper bound below {EQUIVALENCE} elsewhere", text, passed(shape)),
        Check("S5", f"no shift elsewhere: d within +-{EQUIVALENCE}", f"d {outer.show()}", passed(equal)),
    ]


def _d(one: AuthorsSet, *, level: float, seed: int) -> Interval:
    return standardised_shift(one.after - one.before, one.before, one.items, level=level, seed=seed)
