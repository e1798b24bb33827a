"""Artifacts and published numbers to a report: what each cell holds, and why it holds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replication.recipes.jobs_needed import Recipe, Training
from replication.recipes.released import conditions_note
from replication.recipes.setting import Setting
from replication.report.cells import Cell, Origin, Report, Row, Table, Verdict
from replication.report.measurements import ALL_PAIRS, Measured, measured_jobs, measured_training
from replication.report.provenance.comparable import why_not_comparable
from replication.report.provenance.framing import framed
from replication.report.published import PublishedRow, PublishedTable, load_published
from replication.report.results.judges import JudgeLine, judge_lines, not_asked
from replication.report.results.selection import REASON, best_name, best_row, chosen_epochs, measured_best, selects_on_test
from replication.settings.experiments import Row as RegistryRow
from replication.settings.profiles import BenchmarkName
from sarm.store.artifacts import ArtifactStore

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
        return self.setting.profile.benchmarks[name].absent

    def of(self, model: str, name: BenchmarkName) -> Measured:
        """A row or baseline on a benchmark; missing where `--rows` left it out."""
        return self.measured.get((model, name), Measured(per_seed=(), missing="left out by --rows"))


def collect(recipe: Recipe, store: ArtifactStore, *, command: str) -> Report:
    """The report of a recipe, as far as the store has it. `command` is what would fill its gaps."""
    setting = recipe.setting
    experiment = setting.experiment
    why_not = why_not_comparable(setting)
    judges = tuple(judge_lines(recipe, store, command=command))
    sources = Sources(
        recipe=recipe,
        judges=judges,
        measured=_measure_all(recipe, store, command) | {(one.name, name): found for one in judges for name, found in one.measured.items()},
        published=load_published(experiment.published),
        reference=load_published(experiment.reference) if experiment.reference else None,
        comparable=not why_not,
        why_not=why_not,
        epochs={name: chosen_epochs(_by_row(recipe), name, store) for name in setting.profile.benchmarks},
    )
    pairs = _held_out_table if experiment.compared_with else _pairs_table
    builders = {"rewardbench2": _rewardbench2_table, "rmbench": _rmbench_table, "evaluation": pairs}
    tables = [build(sources) for name, build in builders.items() if name in setting.profile.benchmarks]
    return framed(recipe, store, tables=tables)


def _measure_all(recipe: Recipe, store: ArtifactStore, command: str) -> dict[tuple[str, BenchmarkName], Measured]:
    """Each row and baseline on each benchmark; every file of rewards is read once."""
    found: dict[tuple[str, BenchmarkName], Measured] = {}
    for row, trainings in _by_row(recipe).items():
        for name in recipe.setting.profile.benchmarks:
            found[row, name] = measured_training(trainings, name, store, command)
            if selects_on_test(trainings):
                found[best_name(row), name] = measured_best(trainings, name, store, command)
    for features, scores in recipe.baselines.items():
        found |= {(features, name): measured_jobs([job], name, store, command) for name, job in scores.items()}
    return found


def _by_row(recipe: Recipe) -> dict[str, tuple[Training, ...]]:
    return {training.row.name: recipe.of_row(training.row.name) for training in recipe.trainings}


def _rewardbench2_table(sources: Sources) -> Table:
    experiment = sources.setting.experiment
    rows = []
    for published in sources.published.rows:
        judge = next((one for one in sources.judges if one.name == published.name and "rewardbench2" in one.measured), None)
        if judge is not None:
            rows.append(_judged_row(sources, judge, published))
            continue
        ours = experiment.row(published.name) or next((row for row in sources.others if row.name == published.name), None)
        if ours is None and experiment.compared_with:
            continue
        rows.append(_trained_row(sources, ours, published) if ours else _published_row(sources, published))
        rows += _best_rows(sources, ours, "rewardbench2", experiment.columns, group=published.group) if ours else []
    rows += [_judged_row(sources, one, None) for one in sources.judges if one.ours and "rewardbench2" in one.measured]
    known = {published.name for published in sources.published.rows}
    for row in (row for row in (*experiment.rows, *sources.others) if row.name not in known):
        rows += [_trained_row(sources, row, None), *_best_rows(sources, row, "rewardbench2", experiment.columns, group=CONTROLS)]
    rows += _baseline_rows(sources, "rewardbench2", experiment.columns)
    return Table(
        # The published file's name: a cut of Table 2 or 3 is judged by the same numbers.
        name=experiment.published,
        title=experiment.title,
        columns=experiment.columns,
        rows=tuple(rows),
        notes=(*_notes(sources, "rewardbench2"), *filter(None, [not_asked(sources.recipe)])),
    )


def _rmbench_table(sources: Sources) -> Table:
    rows = []
    for row in (*sources.setting.experiment.rows, *sources.others):
        own = _unpublished_row(sources, row, "rmbench", RMBENCH_COLUMNS)
        rows += [own, *_best_rows(sources, row, "rmbench", RMBENCH_COLUMNS, group=own.group)]
    rows += [_judged_row(sources, one, None, on="rmbench") for one in sources.judges if "rmbench" in one.measured]
    rows += _baseline_rows(sources, "rmbench", RMBENCH_COLUMNS)
    name = f"{sources.setting.experiment.name}-rmbench"
    notes = ("hard, normal, easy: style pairs above, on and below the diagonal; the paper prints no RM-Bench numbers",)
    return Table(
        name=name,
        title="The same models on RM-Bench",
        columns=RMBENCH_COLUMNS,
        rows=tuple(rows),
        notes=(*notes, *_notes(sources, "rmbench")),
    )


def _pairs_table(sources: Sources) -> Table:
    """Held-out pairs: a line for each source, a column for each model."""
    profile = sources.setting.profile
    columns = {}
    for row in (*sources.setting.experiment.rows, *sources.others):
        columns[row.name] = sources.of(row.name, "evaluation")
        best = best_name(row.name)
        columns |= {best: sources.of(best, "evaluation")} if (best, "evaluation") in sources.measured else {}
    columns |= {features: sources.of(features, "evaluation") for features in profile.baselines}
    names = list(dict.fromkeys(name for measured in columns.values() for name in measured.names)) or ["All pairs"]
    rows = [
        Row(
            name=f"source-{name}",
            label=f"{name or '(no source named)'} ({_items(columns.values(), name)} pairs)",
            origin="control",
            cells=tuple(_own_cell(sources, measured, name, "evaluation", column=column) for column, measured in columns.items()),
        )
        for name in names
    ]
    return Table(
        name=f"{sources.setting.experiment.name}-pairs",
        title="Pairwise accuracy on held-out preference pairs, by source",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=_notes(sources, "evaluation"),
    )


def _held_out_table(sources: Sources) -> Table:
    """Held-out pairs where there are many models: a line for each."""
    rows = [_unpublished_row(sources, row, "evaluation", (ALL_PAIRS,)) for row in sources.setting.experiment.rows]
    return Table(
        name=f"{sources.setting.experiment.name}-held-out",
        title="Pairwise accuracy on held-out preference pairs",
        columns=(ALL_PAIRS,),
        rows=(*rows, *_baseline_rows(sources, "evaluation", (ALL_PAIRS,))),
        notes=_notes(sources, "evaluation"),
    )


def _items(columns: Iterable[Measured], name: str) -> int:
    """Items behind a metric, of the model that was scored on most."""
    found = [measured.measurement(name) for measured in columns]
    return max((one.n for one in found if one is not None), default=0)


def _trained_row(sources: Sources, row: RegistryRow, published: PublishedRow | None) -> Row:
    measured = sources.of(row.name, "rewardbench2")
    if published is None:
        cells = [_own_cell(sources, measured, column, "rewardbench2") for column in sources.setting.experiment.columns]
    else:
        cells = [_compared_cell(sources, measured, published, column) for column in sources.published.columns]
    return Row(
        name=row.name,
        label=_label(sources, row),
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


def _unpublished_row(sources: Sources, row: RegistryRow, name: BenchmarkName, columns: tuple[str, ...]) -> Row:
    measured = sources.of(row.name, name)
    return Row(
        name=row.name,
        label=_label(sources, row),
        group=OTHERS if row.trained_by_others else (row.group or CONTROLS) if row.control else "SARM",
        origin=_origin_of(row, printed=False),
        note=_row_note(sources, row),
        cells=tuple(_own_cell(sources, measured, column, name) for column in columns),
    )


def _best_rows(
    sources: Sources, row: RegistryRow, name: BenchmarkName, columns: tuple[str, ...], *, group: str
) -> list[Row]:
    """The row's best epoch on the test set itself, where every epoch was scored."""
    best = best_row(row, label=_label(sources, row), group=group)
    measured = sources.measured.get((best.name, name))
    if measured is None:
        return []
    cells = [_own_cell(sources, measured, column, name) for column in columns]
    marked = tuple(cell if cell.ours is None else cell.model_copy(update={"reason": REASON}) for cell in cells)
    return [Row(name=best.name, label=best.label, group=group, origin="control", note=best.note, cells=marked)]


def _published_row(sources: Sources, published: PublishedRow) -> Row:
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


def _judged_row(sources: Sources, judge: JudgeLine, published: PublishedRow | None, *, on: BenchmarkName = "rewardbench2") -> Row:
    """A judge's row; of the published file's columns where it prints one."""
    measured = sources.of(judge.name, on)
    if published is not None:
        cells = [_compared_cell(sources, measured, published, column) for column in sources.published.columns]
    else:
        columns = RMBENCH_COLUMNS if on == "rmbench" else sources.setting.experiment.columns
        cells = [_own_cell(sources, measured, column, on) for column in columns]
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


def _baseline_rows(sources: Sources, name: BenchmarkName, columns: tuple[str, ...]) -> list[Row]:
    rows = []
    for features in sources.setting.profile.baselines:
        measured = sources.of(features, name)
        cells = tuple(_own_cell(sources, measured, column, name) for column in columns)
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


def _own_cell(sources: Sources, measured: Measured, name: str, benchmark: BenchmarkName, *, column: str = "") -> Cell:
    """A cell for which the paper has no number."""
    ours = measured.measurement(name)
    if ours is None:
        return Cell(column=column or name, verdict="MISSING", reason=measured.reason(name, sources.absent(benchmark)))
    return Cell(column=column or name, ours=ours, verdict="NOT COMPARABLE", reason="the paper prints no such number")


def _reference(sources: Sources, row: str, column: str) -> str | None:
    return sources.reference.printed(row, column) if sources.reference else None


def _label(sources: Sources, row: RegistryRow) -> str:
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


def _notes(sources: Sources, name: BenchmarkName) -> tuple[str, ...]:
    absent = sources.absent(name)
    reasons = dict.fromkeys(absent.values())
    notes = [f"{', '.join(subset for subset in absent if absent[subset] == reason)}: {reason}" for reason in reasons]
    for row in (*sources.setting.experiment.rows, *sources.others):
        cut = sources.of(row.name, name).truncated
        notes += [f"{_label(sources, row)}: {cut} completions were cut to the longest length"] if cut else []
    notes += sources.epochs.get(name, ())
    return tuple(notes)
