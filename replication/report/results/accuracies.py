"""Artifacts and published numbers to a report: which tables there are, and which rows stand in each."""

from __future__ import annotations

from collections.abc import Iterable

from replication.recipes.jobs_needed import Recipe, Training
from replication.report.cells import Report, Row, Table
from replication.report.measurements import ALL_PAIRS, Measured, measured_jobs, measured_training
from replication.report.provenance.comparable import why_not_comparable
from replication.report.provenance.framing import framed
from replication.report.published import load_published
from replication.report.results.accuracy_rows import (
    CONTROLS,
    RMBENCH_COLUMNS,
    Sources,
    baseline_rows,
    best_rows,
    judged_row,
    label_of,
    own_cell,
    published_row,
    trained_row,
    unpublished_row,
)
from replication.report.results.judges import judge_lines, not_asked
from replication.report.results.model_facts import models_listing
from replication.report.results.selection import best_name, chosen_epochs, measured_best, selects_on_test
from replication.settings.profiles import BenchmarkName
from sarm.store.artifacts import ArtifactStore


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
    models = models_listing(recipe, store)
    return framed(recipe, store, tables=tables, listings=[models] if models else [])


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
            rows.append(judged_row(sources, judge, published))
            continue
        ours = experiment.row(published.name) or next((row for row in sources.others if row.name == published.name), None)
        if ours is None and experiment.compared_with:
            continue
        rows.append(trained_row(sources, ours, published) if ours else published_row(sources, published))
        rows += best_rows(sources, ours, "rewardbench2", experiment.columns, group=published.group) if ours else []
    rows += [judged_row(sources, one, None) for one in sources.judges if one.ours and "rewardbench2" in one.measured]
    known = {published.name for published in sources.published.rows}
    for row in (row for row in (*experiment.rows, *sources.others) if row.name not in known):
        rows += [trained_row(sources, row, None), *best_rows(sources, row, "rewardbench2", experiment.columns, group=CONTROLS)]
    rows += baseline_rows(sources, "rewardbench2", experiment.columns)
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
        own = unpublished_row(sources, row, "rmbench", RMBENCH_COLUMNS)
        rows += [own, *best_rows(sources, row, "rmbench", RMBENCH_COLUMNS, group=own.group)]
    rows += [judged_row(sources, one, None, on="rmbench") for one in sources.judges if "rmbench" in one.measured]
    rows += baseline_rows(sources, "rmbench", RMBENCH_COLUMNS)
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
            cells=tuple(own_cell(sources, measured, name, "evaluation", column=column) for column, measured in columns.items()),
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
    rows = [unpublished_row(sources, row, "evaluation", (ALL_PAIRS,)) for row in sources.setting.experiment.rows]
    return Table(
        name=f"{sources.setting.experiment.name}-held-out",
        title="Pairwise accuracy on held-out preference pairs",
        columns=(ALL_PAIRS,),
        rows=(*rows, *baseline_rows(sources, "evaluation", (ALL_PAIRS,))),
        notes=_notes(sources, "evaluation"),
    )


def _items(columns: Iterable[Measured], name: str) -> int:
    """Items behind a metric, of the model that was scored on most."""
    found = [measured.measurement(name) for measured in columns]
    return max((one.n for one in found if one is not None), default=0)


def _notes(sources: Sources, name: BenchmarkName) -> tuple[str, ...]:
    absent = sources.absent(name)
    reasons = dict.fromkeys(absent.values())
    notes = [f"{', '.join(subset for subset in absent if absent[subset] == reason)}: {reason}" for reason in reasons]
    for row in (*sources.setting.experiment.rows, *sources.others):
        cut = sources.of(row.name, name).truncated
        notes += [f"{label_of(sources, row)}: {cut} completions were cut to the longest length"] if cut else []
    notes += sources.epochs.get(name, ())
    return tuple(notes)
