"""`<experiment>.results.json` with the per-item rewards it rests on, written beside the tables; and tables from these files alone.

    table1.results.json                              see result_model.ResultFile
    table1/rewards/<row>-<seed>-<benchmark>.jsonl    the artifact's rewards, byte for byte
    table1/rewardbench2/<row>.json                   the official shape, one model a file
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from replication.recipes.jobs_needed import Recipe
from replication.report.cells import Cell, Measurement, Report, Row, Table
from replication.report.measurements import items_interval
from replication.report.provenance.public_text import public_text
from replication.report.results.judges import judge_lines
from replication.report.results.model import (
    SCHEMA_VERSION,
    BenchmarkName,
    Code,
    Environment,
    ResultCost,
    ResultFile,
    ResultMetric,
    RewardFile,
)
from replication.report.results.selection import best_name, selected
from sarm.job import Job, topological_order
from sarm.metrics.credits import OVERALL
from sarm.metrics.rewardbench2 import REWARDBENCH2_SUBSETS
from sarm.store.artifacts import ArtifactStore
from sarm.store.checksums import sha256_of
from sarm.store.json_lines import read_lines
from sarm.store.manifest import Manifest
from sarm.store.whole_files import whole_file, write_whole

SUFFIX, REWARDS, OFFICIAL = ".results.json", "rewards", "rewardbench2"
OWN_MODEL = "replicate-sarm"
SCALAR = {"model_type": "Seq. Classifier", "chat_template": "tokenizer"}


class Address(NamedTuple):
    """What a cell of ours measures."""

    model: str
    benchmark: BenchmarkName
    name: str


def write_results(report: Report, recipe: Recipe, store: ArtifactStore, folder: Path, *, command: str) -> tuple[Path, ...]:
    """Writes the files of one experiment into the folder of its tables; the paths, results.json first."""
    published = recipe.setting.experiment.published
    metrics = tuple(_metrics(report, published))
    wanted = {name for _, ours in _measured_cells(report) for name in ours.artifacts}
    rewards = tuple(_copied(recipe, store, folder, report.experiment, wanted))
    present = [store.manifest(job) for job in topological_order(recipe.jobs) if store.has(job)]
    scored = [one for one in present if f"{one.kind}/{one.short_key}" in wanted]
    found = ResultFile(
        schema_version=SCHEMA_VERSION, experiment=report.experiment, profile=report.profile, protocol=report.protocol, published=published,
        comparable=report.comparable, why_not_comparable=report.why_not_comparable, seeds=report.seeds, metrics=metrics, rewards=rewards,
        inputs=report.inputs, environment=_environment(scored), code=_code(scored), command=public_text(command), cost=_cost(present),
        started=min((one.started for one in present), default=None), ended=max((one.ended for one in present), default=None), report=report,
    )  # fmt: skip
    path = folder / f"{report.experiment}{SUFFIX}"
    write_whole(path, found.model_dump_json(indent=2) + "\n")
    judges = {line.name for line in judge_lines(recipe, store)}
    official = _official(report, published, folder / report.experiment / OFFICIAL, judges=judges)
    return (path, *(folder / one.file for one in rewards), *official)


def earlier_files(results: Sequence[Path]) -> tuple[Path, ...]:
    """Files of rewards and of scores of an earlier draw that lie beside those of this one and belong to none of its rows.

    They stay: they may be the last copy of what hours of work gave.
    """
    experiments = [path.with_name(path.name.removesuffix(SUFFIX)) for path in results if path.name.endswith(SUFFIX)]
    folders = [folder / part for folder in experiments for part in (REWARDS, OFFICIAL)]
    return tuple(path for folder in folders for path in sorted(folder.glob("*.json*")) if path not in results)


def address(report: Report, published: str, table: Table, row: Row, column: str) -> Address | None:
    """What a cell measures; None for tables whose numbers are no benchmark's."""
    if table.name == f"{report.experiment}-rmbench":
        return Address(row.name, "rmbench", column)
    if table.name == f"{report.experiment}-pairs":
        return Address(column, "evaluation", row.name.removeprefix("source-"))
    if table.name == f"{report.experiment}-held-out":
        return Address(row.name, "evaluation", column)
    counted = table.name == published and column in (OVERALL, *REWARDBENCH2_SUBSETS)
    return Address(row.name, "rewardbench2", column) if counted else None


def _measured_cells(report: Report) -> Iterator[tuple[tuple[Table, Row, Cell], Measurement]]:
    for table in report.tables:
        for row in table.rows:
            for cell in row.cells:
                if cell.ours is not None:
                    yield (table, row, cell), cell.ours


def _metrics(report: Report, published: str) -> Iterator[ResultMetric]:
    for (table, row, cell), ours in _measured_cells(report):
        place = address(report, published, table, row, cell.column)
        if place is not None:
            yield ResultMetric(
                table=table.name, row=row.name, column=cell.column, model=place.model, benchmark=place.benchmark, name=place.name,
                value=ours.value, n=ours.n, correct=ours.correct, se=ours.standard_error,
                ci95=items_interval(ours, counted=place.benchmark != "rmbench"),
            )  # fmt: skip


def _copied(recipe: Recipe, store: ArtifactStore, folder: Path, experiment: str, wanted: set[str]) -> Iterator[RewardFile]:
    """Copies the rewards of every artifact that a cell rests on."""
    for model, seed, benchmark, job in scorings(recipe, store):
        artifact = f"{job.kind}/{job.short_key}"
        if artifact not in wanted:
            continue
        name = f"{experiment}/{REWARDS}/{model}-{'' if seed is None else f'{seed}-'}{benchmark}.jsonl"
        source, target = store.path(job) / "rewards.jsonl", folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
        items = sum(1 for _ in read_lines(target))
        yield RewardFile(
            model=model, seed=seed, benchmark=benchmark, file=name, sha256=sha256_of(target), items=items, artifact=artifact
        )


def scorings(recipe: Recipe, store: ArtifactStore) -> Iterator[tuple[str, int | None, BenchmarkName, Job]]:
    """Row, seed (None where there is none), benchmark and job of every scoring of a recipe, whether the store has it or not."""
    for training in recipe.trainings:
        for benchmark, job in training.scores.items():
            yield training.row.name, training.seed, benchmark, job
            for best in selected([training], benchmark, store):
                yield best_name(training.row.name), training.seed, benchmark, best.job
    for features, scores in recipe.baselines.items():
        for benchmark, job in scores.items():
            yield features, None, benchmark, job
    for line in judge_lines(recipe, store):
        for benchmark, job in line.jobs.items():
            yield line.name, None, benchmark, job


def _environment(scored: Sequence[Manifest]) -> Environment:
    """Of the last scoring by a model; a baseline knows no dtype."""
    if not scored:
        return Environment()
    last = max(scored, key=lambda one: (one.kind == "score_benchmark", one.ended))
    config: Mapping[str, object] = last.config

    def given(name: str, kind: type) -> object:
        value = config.get(name)
        return value if isinstance(value, kind) else None

    return Environment.model_validate(
        {
            "python": last.packages.get("python"),
            "packages": {name: version for name, version in last.packages.items() if name != "python"},
            "gpus": last.hardware.gpus,
            "processor": last.hardware.processor or None,
            "world_size": last.resources.get("processes"),
            **{name: given(name, str) for name in ("dtype", "attention", "truncation", "bos")},
            **{name: given(name, int) for name in ("batch_tokens", "max_length")},
        }
    )


def _code(scored: Sequence[Manifest]) -> Code:
    if not scored:
        return Code(commit="unknown", dirty=False)
    last = max(scored, key=lambda one: one.ended)
    return Code(commit=last.code.commit, dirty=any(one.code.dirty for one in scored))


def _cost(present: Sequence[Manifest]) -> ResultCost:
    gpu_seconds = sum(one.seconds * int(one.resources.get("gpus", 0)) for one in present)
    return ResultCost(
        gpu_hours=round(gpu_seconds / 3600, 4),
        seconds=round(sum(one.seconds for one in present), 3),
        peak_memory=max((one.peak_memory_bytes for one in present), default=0),
    )


def _official(report: Report, published: str, folder: Path, *, judges: Set[str]) -> Iterator[Path]:
    """The official RewardBench 2 shape of each model that has all six subsets: fractions, one file a seed."""
    for table in report.tables:
        for row in table.rows if table.name == published else ():
            ours = {cell.column: cell.ours for cell in row.cells if cell.ours is not None}
            if not set(REWARDBENCH2_SUBSETS) <= set(ours):
                continue
            seeds = len(ours["Ties"].per_seed)
            for place in range(max(1, seeds)):
                values = {name: (ours[name].per_seed[place] if seeds else ours[name].value) / 100 for name in REWARDBENCH2_SUBSETS}
                model = f"{OWN_MODEL}/{report.profile}/{row.name}"
                kind = {"model_type": "Generative RM", "chat_template": None} if row.name in judges else SCALAR
                content = {**values, "model": model, **kind}
                path = folder / (f"{row.name}-{report.seeds[place]}.json" if seeds else f"{row.name}.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(content, indent=2) + "\n")
                yield path

