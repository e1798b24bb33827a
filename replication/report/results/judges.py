"""Judges in a table: which mode stands in the published row, what could not be read, and why a judge has no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from replication.recipes.jobs_needed import Recipe
from replication.recipes.judges import Judged
from replication.report.answers import remarks
from replication.report.measurements import Measured, measured_jobs
from replication.report.provenance.framing import command_of
from replication.settings.judges import MODES, JudgeRow, Mode
from replication.settings.profiles import BenchmarkName
from sarm.job import Job
from sarm.metrics.credits import OVERALL
from sarm.store.artifacts import ArtifactStore
from sarm.store.json_files import read_facts

MODE_WORDS: Mapping[Mode, str] = {"ranking": "one of four named best, seeded positions", "rating": "each completion rated 1 to 10"}


class JudgeLine(NamedTuple):
    """A row of judgements. `name` is the published row's, or that of a row of ours; `jobs` is empty where nobody could be asked."""

    name: str
    row: JudgeRow
    mode: Mode
    jobs: dict[BenchmarkName, Job]
    measured: dict[BenchmarkName, Measured]
    notes: dict[BenchmarkName, str]
    ours: bool


def judge_lines(recipe: Recipe, store: ArtifactStore, *, command: str = "") -> list[JudgeLine]:
    """The judges that have something to show, each with one line a mode; the first is the better one where both were asked."""
    return [line for judged in recipe.judges for line in _lines(judged, store, command)]


def not_asked(recipe: Recipe) -> str:
    """Why the other judges have no numbers; empty where all have."""
    silent = [judged for judged in recipe.judges if not judged.jobs and not judged.asked]
    if not silent:
        return ""
    names = ", ".join(judged.row.name for judged in silent)
    command = command_of(recipe.setting)
    return f"judges that were not asked: {names}; an endpoint answers: {command} --judge {silent[0].row.name} --api-base URL"


def _lines(judged: Judged, store: ArtifactStore, command: str) -> list[JudgeLine]:
    if not judged.jobs:
        why = f"nobody to ask: give --api-base URL or --answers FILE with --judge {judged.row.name}"
        missing: dict[BenchmarkName, Measured] = {"rewardbench2": Measured(per_seed=(), missing=why)}
        return [JudgeLine(judged.row.name, judged.row, "ranking", {}, missing, {}, ours=judged.row.ours)] if judged.asked else []
    measured = {mode: measured_jobs([job], "rewardbench2", store, command) for mode, job in judged.modes.items()}
    order = sorted(measured, key=lambda mode: (-_overall(measured[mode]), MODES.index(mode)))
    lines = [_mode_line(judged, mode, measured[mode], store, first=mode == order[0]) for mode in order]
    if len(lines) > 1:
        lines[0].notes["rewardbench2"] = "; ".join(filter(None, [lines[0].notes["rewardbench2"], _choice(measured)]))
    if judged.rmbench is not None:
        first = lines.pop(0) if lines else JudgeLine(judged.row.name, judged.row, "rating", {}, {}, {}, ours=judged.row.ours)
        rated = measured_jobs([judged.rmbench], "rmbench", store, command)
        first.jobs["rmbench"], first.measured["rmbench"] = judged.rmbench, rated
        first.notes["rmbench"] = _said(judged.row, "rating", judged.rmbench, store)
        lines.insert(0, first)
    return lines


def _mode_line(judged: Judged, mode: Mode, measured: Measured, store: ArtifactStore, *, first: bool) -> JudgeLine:
    name, job = judged.row.name if first else f"{judged.row.name}-{mode}", judged.modes[mode]
    notes: dict[BenchmarkName, str] = {"rewardbench2": _said(judged.row, mode, job, store)}
    return JudgeLine(name, judged.row, mode, {"rewardbench2": job}, {"rewardbench2": measured}, notes, ours=judged.row.ours or not first)


def _overall(measured: Measured) -> float:
    found = measured.measurement(OVERALL)
    return found.value if found is not None else float("-inf")


def _choice(measured: Mapping[Mode, Measured]) -> str:
    """What the benchmark's paper does with two modes, where both can be compared."""
    found = {mode: one.measurement(OVERALL) for mode, one in measured.items()}
    told = [f"{mode} {one.value:.1f}" for mode, one in found.items() if one is not None]
    if len(told) < len(found):
        return "both modes were asked, but they cannot be compared without Overall"
    return f"the mode with the better Overall ({', '.join(told)}), as RewardBench 2's paper reports: a choice made on the test set"


def _said(row: JudgeRow, mode: Mode, job: Job, store: ArtifactStore) -> str:
    """How it was asked and how many answers could not be read; empty while there are none."""
    path = store.path(job) / "conditions.json"
    if not store.has(job) or not path.is_file():
        return ""
    facts = read_facts(path, "rankings", "ratings", "benchmark", "unread", "reading")
    answers = facts["rankings"] + facts["ratings"]
    more = "".join(f"; {part}" for part in remarks(facts, path.parent))
    if facts["benchmark"] == "rmbench":
        return f"{row.model}; {facts['unread']} of {answers:,} ratings could not be read; rating RM-Bench's completions is our choice{more}"
    unread = f"{facts['unread']} of {answers:,} answers could not be read (1/4 of an item, -1 in Ties, as officially)"
    differently = f"the {_other(facts)} parser reads {facts['read_differently']} differently"
    return f"{row.model}, {MODE_WORDS[mode]}; {unread}; {differently}{more}"


def _other(facts: Mapping[str, Any]) -> str:
    return "official" if facts["reading"] == "checked" else "checked"
