"""The same table on what stands for another machine: other instructions, threads, micro-batches, two processes, a GPU."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import variance
from typing import NamedTuple, get_args

from miniature_runs import BEST_OF_4, COLUMNS, SARMS, Run, chosen, markdown, mean
from scipy.stats import chi2

from replication.report.cells import Measurement, Report
from replication.report.verdicts.diff import against_report, load_results, machine_error
from replication.report.verdicts.rules import MachineKey, VerdictRules, load_rules

MOST_APART = {"Overall": 2.0} | dict.fromkeys((*BEST_OF_4, "Ties"), 6.0)
# Tables of cells that share no item; means over these would count the same difference twice.
WITHOUT_MEANS = {"table1": (*BEST_OF_4, "Ties"), "table1-rmbench": ("chat", "math", "code", "safety")}
DISPERSIONS = get_args(MachineKey)
# The half from which the dispersions are estimated, chosen before any was run on today's language; the others check it.
FITTED = ("ATEN_CPU_CAPABILITY=avx2", "OMP_NUM_THREADS=2", "micro-batch")


@dataclass(frozen=True)
class Variant:
    """How a run differs from the plain one; nothing of it is in a job's key."""

    environment: Mapping[str, str] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    workers: int | None = None


class Apart(NamedTuple):
    """A variant minus the base, in points, by row and column of Table 1."""

    name: str
    report: Report
    differences: Mapping[tuple[str, str], float]


def variants() -> dict[str, Variant]:
    """What can be run here; a GPU only where torch sees one."""
    import torch  # noqa: PLC0415 - a second of import that --help must not pay

    found = {f"ATEN_CPU_CAPABILITY={name}": Variant({"ATEN_CPU_CAPABILITY": name}) for name in ("default", "avx2")}
    # MKL would take no more threads than there are cores, whatever OMP_NUM_THREADS says, and torch takes as many as MKL.
    for count in ("1", "2", "4"):
        found[f"OMP_NUM_THREADS={count}"] = Variant({"OMP_NUM_THREADS": count, "MKL_DYNAMIC": "FALSE"}, workers=1)
    # A batch of the miniature has about 1,000 tokens: more than these would split nothing.
    found["micro-batch"] = Variant(sets=("resources.micro_batch_tokens=512",))
    found["two processes, ZeRO 2"] = Variant(sets=("resources.processes=2", "resources.zero_stage=2"), workers=1)
    if torch.cuda.is_available():
        found["GPU"] = Variant(sets=("resources.gpus=1",), workers=1)
    return found


def run_of(plain: Run, folder: Path, name: str, variant: Variant) -> Run:
    """The plain run changed by a variant, in a store of its own."""
    place = folder / re.sub(r"\W+", "-", name)
    return replace(
        plain,
        store=place / "store",
        out=place / "tables",
        sets=(*plain.sets, *variant.sets),
        workers=plain.workers if variant.workers is None else variant.workers,
        environment=variant.environment,
    )


def own_numbers(report: Report) -> dict[tuple[str, str, str], Measurement]:
    """Table, row and column of each number that was trained."""
    return {
        (table.name, row.name, cell.column): cell.ours
        for table in report.tables
        for row in table.rows
        for cell in row.cells
        if cell.ours is not None and row.name in SARMS
    }


def own_values(report: Report) -> dict[tuple[str, str, str], tuple[float, ...]]:
    """What was trained, to the last digit."""
    return {place: (one.value, *one.per_seed) for place, one in own_numbers(report).items()}


def apart(name: str, report: Report, base: Report) -> Apart:
    """The differences of Table 1's cells."""
    theirs = own_numbers(base)
    found = {
        (row, column): one.value - theirs[table, row, column].value
        for (table, row, column), one in own_numbers(report).items()
        if table == "table1" and (table, row, column) in theirs
    }
    return Apart(name, report, found)


def squares(report: Report, base: Report) -> dict[str, list[float]]:
    """Half the squared difference of each cell of two runs in squared errors, by key of margins.toml: Ties has a dispersion of its own.

    Two runs differ by twice one run's variance, so the mean of these estimates the dispersion. Cells whose error is 0 (0 or 100 % in
    both) say nothing and are left out.
    """
    theirs, rules = own_numbers(base), load_rules()
    found: dict[str, list[float]] = {key: [] for key in DISPERSIONS}
    for place, one in own_numbers(report).items():
        if place[2] not in WITHOUT_MEANS.get(place[0], ()) or place not in theirs:
            continue
        error = (machine_error(one) + machine_error(theirs[place])) / 2
        if error:
            key, _ = rules.machine_dispersion_of(place[2])
            found[key].append(((one.value - theirs[place].value) / error) ** 2 / 2)
    return found


def dispersions_of_seeds(found: Mapping[int, Report]) -> str:
    """The variance over seeds of each language's cells in squared errors of one run, as `squares` has that of machines.

    A machine changes roundings alone, so that it can hardly set two runs further apart than another seed does.
    """
    rules, rows = load_rules(), []
    pooled: dict[str, list[float]] = {key: [] for key in DISPERSIONS}
    for language, report in found.items():
        own: dict[str, list[float]] = {key: [] for key in DISPERSIONS}
        for (name, _, column), one in own_numbers(report).items():
            error = machine_error(one) * math.sqrt(len(one.per_seed) or 1)
            if column in WITHOUT_MEANS.get(name, ()) and error and len(one.per_seed) > 1:
                own[rules.machine_dispersion_of(column)[0]].append(variance(one.per_seed) / error**2)
        rows.append([str(language), *(f"{mean(own[key]):.2f} ({len(own[key])} cells)" for key in DISPERSIONS)])
        pooled = {key: pooled[key] + own[key] for key in DISPERSIONS}
    rows.append(["all", *(f"{mean(pooled[key]):.2f} ({len(pooled[key])} cells)" for key in DISPERSIONS)])
    return markdown(["language", "mean variance over seeds, in squared errors of one run", "of Ties"], rows)


def upper_bound(parts: Sequence[float], *, level: float = 0.9) -> float:
    """What the dispersion is not above at this level if the differences are normal and independent; they share a base, so it is near.

    A mean of few squares is as often too small as too large, and a budget from one that is too small cries wolf.
    """
    return math.fsum(parts) / float(chi2.ppf(1 - level, len(parts))) if parts else math.nan


def table(found: Sequence[Apart]) -> tuple[str, dict[str, bool]]:
    """Differences by cell, and whether each keeps its bound."""
    rows, holds = [], {}
    for one in found:
        for model in SARMS:
            cells = {column: one.differences[model, column] for column in COLUMNS if (model, column) in one.differences}
            if not cells:
                continue
            kept = all(abs(value) <= MOST_APART[column] for column, value in cells.items())
            holds[f"the same: {one.name}, {model}"] = kept
            numbers = [f"{cells[column]:+.1f}" if column in cells else "—" for column in COLUMNS]
            rows.append([one.name, model, *numbers, "yes" if kept else "NO"])
    head = ["variant", "model", *(f"{column} (<= {most:g})" for column, most in MOST_APART.items()), "all"]
    return markdown(head, rows), holds


def estimate_and_check(found: Sequence[Apart], base: Report) -> tuple[str, dict[str, bool]]:
    """The dispersions from those of FITTED that compute otherwise at all, and how many cells of the others DIFFER under it.

    A variant that rounds exactly as the base does (one thread against one thread) is no other machine, and would pull the estimate down;
    one that rounds as another variant does checks nothing that the other did not.
    """
    if not found:
        return "No variant was run.", {}
    parts = {one.name: squares(one.report, base) for one in found}
    same = same_as(found, base)
    other = [one for one in found if one.name not in same]
    if not other:
        return "Every variant gave the base's numbers: there is nothing to estimate machine_dispersion from.", {}
    fitted, others = ([one for one in other if (one.name in FITTED) is wanted] for wanted in (True, False))
    if not fitted:
        return f"None of {'; '.join(FITTED)} was run: there is nothing to estimate machine_dispersion from.", {}
    pooled = {key: [part for one in fitted for part in parts[one.name][key]] for key in DISPERSIONS}
    values = {key: upper_bound(pooled[key]) for key in DISPERSIONS}
    shipped = load_rules()
    estimated = shipped.model_copy(update={key: value for key, value in values.items() if math.isfinite(value)})
    rows = []
    for one in found:
        use = "estimate" if one in fitted else "check" if one in others else f"identical to {same[one.name]}: left out"
        alarms = [str(alarms_under(rules, one.report, base)) for rules in (estimated, shipped)]
        rows.append([one.name, use, *(f"{mean(parts[one.name][key]):.2f}" for key in DISPERSIONS), *alarms])
    head = ["variant", "for", "its own estimate", "of Ties", "cells that DIFFER under the bounds below", "under what is on file"]
    off = sum(int(row[4]) > 0 for row in rows if row[1] == "check")
    told = [
        f"{key} = {values[key]:.2f}: upper 90 % bound of a mean of {mean(pooled[key]):.2f} over {len(pooled[key])} cells"
        f" of {len(fitted)} variants ({getattr(shipped, key):g} on file)."
        for key in DISPERSIONS
    ]
    told.append(f"Of the {len(others)} other variants {off} have a DIFFERS under these.")
    return "\n\n".join([markdown(head, rows), *told]), {"no false alarm among the checked variants": off == 0} if others else {}


def same_as(found: Sequence[Apart], base: Report) -> dict[str, str]:
    """Variants with the numbers of the base, or of another variant, to the last digit, each with whose they are; FITTED come first."""
    same: dict[str, str] = {}
    first = [("the base", own_values(base))]
    for one in sorted(found, key=lambda one: one.name not in FITTED):
        own = own_values(one.report)
        twin = next((name for name, values in first if values == own), None)
        if twin is None:
            first.append((one.name, own))
        else:
            same[one.name] = twin
    return same


def alarms_under(rules: VerdictRules, report: Report, base: Report) -> int:
    """Cells that the diff would call DIFFERS."""
    judged = against_report(report, base, rules=rules)
    return sum(cell.verdict == "DIFFERS" for table in judged.tables for row in table.rows for cell in row.cells)


def measure(plain: Run, folder: Path, seed: int, *, base: Path, only: Sequence[str] = ()) -> tuple[list[str], dict[str, bool]]:
    """Run the variants, or read those that were, and tell how far each is from the base. Raises SystemExit for an unknown name."""
    known = variants()
    reference, found = load_results(base), []
    runs = {name: run_of(plain, folder, name, known[name]) for name in chosen(known, only, "variant")}
    absent = [name for name, run in runs.items() if run.read and not run.has("table1")]
    for name, run in runs.items():
        if name not in absent:
            found.append(apart(name, run.whole_table("table1", [seed]), reference))
            print(table(found[-1:])[0], flush=True)
    text, holds = table(found)
    estimated, checked = estimate_and_check(found, reference)
    told = [f"Not run: {'; '.join(absent)}."] if absent else []
    return [text, estimated, *told], {**holds, **checked}
