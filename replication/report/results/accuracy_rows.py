"""Rows of accuracies: what stands in each cell, with its published number beside it, and why there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replication.recipes.jobs_needed import Recipe
from replication.recipes.released import conditions_note
from replication.recipes.setting import Setting
from replication.report.cells import Cell, Origin, Row, Verdict
from replication.report.measurements import Measured
from replication.report.published import PublishedRow, PublishedTable
from replication.report.results.judges import JudgeLine
from replication.report.results.selection import REASON, best_row
from replication.settings.experiments import Row as RegistryRow
from replication.settings.profiles import BenchmarkName

RMBENCH_COLUMNS = ("Overall", "chat", "math", "code", "safety", "hard", "normal", "easy")
CONTROLS = "Controls (ours)"
OTHERS = "Released by others"
BASELINE_LABELS: Mapping[str, str] = {"length": "Length only", "bag-of-words": "Bag of words and length"}


@dataclass(frozen=True)
class Sources:
    """All that cells are made from."""

    recipe: Recipe
    measured: Mapping[tuple[str, BenchmarkName], Measured]
    published: PublishedTable
    reference: PublishedTable | None
    comparable: bool
    why_not: str
    epochs: Mapping[BenchmarkName, Sequence[str]] = field(default_factory=dict)
    judges: tuple[JudgeLine, ...] = ()

    @property
    def others(self) -> tuple[RegistryRow, ...]:
        """Models of others that this run scores."""
        rows = {training.row.name: training.row for training in self.recipe.trainings if training.row.trained_by_others}
        return tuple(rows.values())

    @property
    def setting(self) -> Setting:
        """What was asked for."""
        return self.recipe.setting

    def absent(self, name: BenchmarkName) -> Mapping[str, str]:
        """Subsets of a benchmark that the profile does not have, and why."""
        return self.setting.profile.benchmarks[name].absent if name in self.setting.profile.benchmarks else {}

    def of(self, model: str, name: BenchmarkName) -> Measured:
        """A row or baseline on a benchmark; missing where `--rows` left it out or the profile has no such benchmark."""
        profile = self.setting.profile
        why = "left out by --rows" if name in profile.benchmarks else f"profile {profile.name} has no such benchmark"
        return self.measured.get((model, name), Measured(per_seed=(), missing=why))


def trained_row(sources: Sources, row: RegistryRow, published: PublishedRow | None) -> Row:
    """A model of ours (or of others) on RewardBench 2, beside its published row where there is one."""
    measured = sources.of(row.name, "rewardbench2")
    if published is None:
        cells = [own_cell(sources, measured, column, "rewardbench2") for column in sources.setting.experiment.columns]
    else:
        cells = [_compared_cell(sources, measured, published, column) for column in sources.published.columns]
    return Row(
        name=row.name,
        label=label_of(sources, row),
        size=published.size if published else "",
        group=published.group if published else row.group or (OTHERS if row.trained_by_others else CONTROLS),
        origin=_origin_of(row, published is not None),
        note=_row_note(sources, row),
        cells=tuple(cells),
    )


def _origin_of(row: RegistryRow, printed: bool) -> Origin:
    if row.trained_by_others:
        return "paper-baseline" if printed else "control"
    return "control" if row.control else "paper-ours"


def unpublished_row(sources: Sources, row: RegistryRow, name: BenchmarkName, columns: tuple[str, ...]) -> Row:
    """A model's row in a table of which the paper prints no number."""
    measured = sources.of(row.name, name)
    return Row(
        name=row.name,
        label=label_of(sources, row),
        group=OTHERS if row.trained_by_others else (row.group or CONTROLS) if row.control else "SARM",
        origin=_origin_of(row, printed=False),
        note=_row_note(sources, row),
        cells=tuple(own_cell(sources, measured, column, name) for column in columns),
    )


def best_rows(
    sources: Sources, row: RegistryRow, name: BenchmarkName, columns: tuple[str, ...], *, group: str
) -> list[Row]:
    """The row's best epoch on the test set itself, where every epoch was scored."""
    best = best_row(row, label=label_of(sources, row), group=group)
    measured = sources.measured.get((best.name, name))
    if measured is None:
        return []
    cells = [own_cell(sources, measured, column, name) for column in columns]
    marked = tuple(cell if cell.ours is None else cell.model_copy(update={"reason": REASON}) for cell in cells)
    return [Row(name=best.name, label=best.label, group=group, origin="control", note=best.note, cells=marked)]


def published_row(sources: Sources, published: PublishedRow) -> Row:
    """A row that the paper quotes and nobody measured here: why stands in each cell."""
    cells = [
        Cell(
            column=column,
            published=sources.published.printed(published.name, column),
            reference=_reference(sources, published.name, column),
            verdict="PUBLISHED ONLY",
            reason=_why_only_published(sources, published),
        )
        for column in sources.published.columns
    ]
    return Row(
        name=published.name,
        label=published.label,
        size=published.size,
        group=published.group,
        origin=published.origin,
        note=published.note,
        cells=tuple(cells),
    )


def _why_only_published(sources: Sources, published: PublishedRow) -> str:
    setting = sources.setting
    if setting.source != "released":
        return "a baseline that the paper quotes; we do not train it"
    if published.name in setting.profile.released:
        return f"not asked for; score it with --from released --rows {published.name}"
    return f"no weights of it are named in profile {setting.profile.name} ([released.\"{published.name}\"]); closed models are judges"


def judged_row(sources: Sources, judge: JudgeLine, published: PublishedRow | None, *, on: BenchmarkName = "rewardbench2") -> Row:
    """A judge's row; of the published file's columns where it prints one."""
    measured = sources.of(judge.name, on)
    if published is not None:
        cells = [_compared_cell(sources, measured, published, column) for column in sources.published.columns]
    else:
        columns = RMBENCH_COLUMNS if on == "rmbench" else sources.setting.experiment.columns
        cells = [own_cell(sources, measured, column, on) for column in columns]
    printed = next((one for one in sources.published.rows if one.name == judge.row.name), None)
    label = printed.label if printed else judge.row.name
    return Row(
        name=judge.name,
        label=f"{label}, {judge.mode}" if judge.ours and on == "rewardbench2" else label,
        size=published.size if published else "",
        group=published.group if published else CONTROLS,
        origin="control" if judge.ours else "paper-baseline",
        note=judge.notes.get(on, ""),
        cells=tuple(cells),
    )


def baseline_rows(sources: Sources, name: BenchmarkName, columns: tuple[str, ...]) -> list[Row]:
    """The profile's baselines: one row for each."""
    rows = []
    for features in sources.setting.profile.baselines:
        measured = sources.of(features, name)
        cells = tuple(own_cell(sources, measured, column, name) for column in columns)
        whose = "the same pairs as the models" if sources.setting.experiment.compared_with else "all training pairs of the profile"
        note = f"fitted on {whose}; knows no language model"
        rows.append(Row(name=features, label=BASELINE_LABELS[features], group=CONTROLS, origin="control", note=note, cells=cells))
    return rows


def _compared_cell(sources: Sources, measured: Measured, published: PublishedRow, column: str) -> Cell:
    ours = measured.measurement(column)
    verdict: Verdict = "INCONCLUSIVE"
    reason = ""
    if ours is None:
        verdict, reason = "MISSING", measured.reason(column, sources.absent("rewardbench2"))
    elif not sources.comparable:
        verdict, reason = "NOT COMPARABLE", sources.why_not
    return Cell(
        column=column,
        ours=ours,
        published=sources.published.printed(published.name, column),
        reference=_reference(sources, published.name, column),
        verdict=verdict,
        reason=reason,
    )


def own_cell(sources: Sources, measured: Measured, name: str, benchmark: BenchmarkName, *, column: str = "") -> Cell:
    """A cell for which the paper has no number."""
    ours = measured.measurement(name)
    if ours is None:
        return Cell(column=column or name, verdict="MISSING", reason=measured.reason(name, sources.absent(benchmark)))
    return Cell(column=column or name, ours=ours, verdict="NOT COMPARABLE", reason="the paper prints no such number")


def _reference(sources: Sources, row: str, column: str) -> str | None:
    return sources.reference.printed(row, column) if sources.reference else None


def label_of(sources: Sources, row: RegistryRow) -> str:
    """What a row is called: its own label, or else the printed one."""
    printed = next((one.label for one in sources.published.rows if one.name == row.name), "")
    return row.label or printed or row.name


def _row_note(sources: Sources, row: RegistryRow) -> str:
    """What a reader must know of the row: its own note, and where the profile's counterpart is not exact."""
    if sources.setting.source == "released":
        return conditions_note(sources.setting, row.name)
    backbone = sources.setting.profile.backbones.get(row.slot)
    notes = [row.note]
    if backbone is not None:
        found = [backbone.layers.get(row.layer), backbone.ks.get(row.k)]
        notes += [counterpart.inexact for counterpart in found if counterpart is not None]
    return "; ".join(note for note in notes if note)
