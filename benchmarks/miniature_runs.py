"""What the miniature's measurement runs: the `replicate` command in processes of its own, and what its results files say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replication.report.cells import Measurement, Report
from replication.report.results.reading import read_results
from replication.report.verdicts.diff import load_results
from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.preferences import Preference, read_jsonl
from sarm.data.tokens import ConversationTokenizer
from sarm.scoring.completions import encode_completions

ROOT = Path(__file__).resolve().parent.parent
FILES = ("train", "evaluation", "rewardbench2", "rmbench")
BEST_OF_4 = ("Factuality", "Precise IF", "Math", "Safety", "Focus")
COLUMNS = ("Overall", *BEST_OF_4, "Ties")
PAIRS = "held-out pairs"
SCALAR, SARMS = "scalar-trunc", ("sarm-1b", "sarm-2b", "sarm-4b")
SURFACE = ("length", "bag-of-words")


@dataclass(frozen=True)
class Run:
    """One call of `replicate`: where it keeps things, and what is different from the plain one.

    `source` is the tree whose code runs; `environment` is added to the process's own. `read`: nothing is trained, a table is what its
    results file in `out` says, if it is of today's jobs.
    """

    store: Path
    out: Path
    profile: str
    sets: tuple[str, ...] = ()
    workers: int = 0
    source: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)
    read: bool = False

    def table(self, experiment: str, seeds: Sequence[int], *, rows: str = "") -> int:
        """Train what is missing and write the results file; gives the exit code, and shows the last lines where it is not 0."""
        if self.read:
            self.refuse_other_jobs({experiment: [self.results(experiment)]}, seeds)
            return 0
        # Relative, as results files say their command.
        store, out = (os.path.relpath(path, self.source) for path in (self.store, self.out))
        places = ["--store", store, "--out", out, "--workers", str(self.workers), "--yes"]
        chosen = ["--rows", rows] if rows else []
        done = self._call(experiment, "--profile", self.profile, "--seeds", joined(seeds), *self._settings(), *places, *chosen)
        if done.returncode:
            print("\n".join((done.stdout + done.stderr).splitlines()[-12:]), file=sys.stderr)
        return done.returncode

    def whole_table(self, experiment: str, seeds: Sequence[int], *, rows: str = "") -> Report:
        """The report of a table that must succeed. Raises SystemExit with its exit code."""
        started = time.monotonic()
        code = self.table(experiment, seeds, rows=rows)
        if code:
            raise SystemExit(f"replicate {experiment} ended with code {code} (store {self.store})")
        if not self.read:
            print(f"{experiment} {rows} in {self.store.name}: {time.monotonic() - started:.0f} s", flush=True)
        return load_results(self.results(experiment))

    def refuse_other_jobs(self, files: Mapping[str, Sequence[Path]], seeds: Sequence[int]) -> None:
        """Raises SystemExit where results files (by experiment) rest on jobs that a run of today would not have.

        A job's key holds all that its numbers follow from but the machine, so other keys are numbers of another miniature.
        """
        for experiment, paths in files.items():
            words = ("plan", experiment, "--profile", self.profile, "--seeds", joined(seeds), *self._settings())
            done = self._call(*words, "--store", str(self.store), "--json")
            if done.returncode:
                raise SystemExit(f"replicate plan {experiment} ended with code {done.returncode}: {done.stderr[-500:]}")
            today = {f"{job['kind']}/{job['key']}"[: len(job["kind"]) + 13] for job in json.loads(done.stdout)["jobs"]}
            for path in paths:
                rewards = read_results(path).rewards
                if not rewards:
                    raise SystemExit(f"{path}: names no job, so nothing tells whether its numbers are of today's {experiment}")
                other = sorted({one.artifact for one in rewards if one.seed in (None, *seeds)} - today)
                if other:
                    raise SystemExit(f"{path}: {other[0]} and {len(other) - 1} more are no jobs of today's {experiment}; run it anew")

    def _settings(self) -> list[str]:
        return [word for one in self.sets for word in ("--set", one)]

    def results(self, experiment: str) -> Path:
        """The results file of its last table of that name."""
        found = sorted(self.out.glob(f"*/{experiment}.results.json"))
        if len(found) != 1:
            raise SystemExit(f"{self.out}: {len(found)} files {experiment}.results.json, one is needed; give --store an empty folder")
        return found[0]

    def diff(self, base: Path) -> tuple[int, list[dict[str, str]]]:
        """`replicate diff table1` against a results file: exit code, and the compared cells."""
        done = self._call("diff", "table1", "--results", str(self.results("table1")), "--against", str(base), "--format", "json")
        return done.returncode, json.loads(done.stdout)["rows"] if done.stdout.startswith("{") else []

    def has(self, experiment: str) -> bool:
        """Whether there is a results file of a table."""
        return any(self.out.glob(f"*/{experiment}.results.json"))

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        places = {"PYTHONPATH": str(self.source), "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1", "COLUMNS": "200"}
        command = [sys.executable, "-m", "replication.cli", *words]
        # The folder of the tree, so that a faulty copy never reads a file of the tree that it was copied from.
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.source, env={**os.environ, **places, **self.environment}
        )


def joined(numbers: Sequence[int]) -> str:
    """As the command line wants them."""
    return ",".join(str(number) for number in numbers)


def measured(report: Report, model: str) -> dict[str, Measurement]:
    """Our numbers of one model: RewardBench 2's columns and the held-out pairs."""
    found = {}
    for table in report.tables:
        for row in table.rows:
            for cell in row.cells:
                if cell.ours is None:
                    continue
                if table.name == report.experiment and row.name == model:
                    found[cell.column] = cell.ours
                elif table.name == f"{report.experiment}-pairs" and row.name == "source-All pairs" and cell.column == model:
                    found[PAIRS] = cell.ours
    return found


def per_seed(one: Measurement) -> tuple[float, ...]:
    """A number for each seed, in percent."""
    return one.per_seed or (one.value,)


def read_elsewhere(run: Run, seeds: Sequence[int]) -> dict[str, dict[str, tuple[float, ...]]]:
    """Model -> column -> a number for each seed, from all results files of Tables 1 and 2 in a run's `out`, each of some seeds and models.

    Raises SystemExit where a seed of a model is missing, where two files say different things, or as `refuse_other_jobs` does.
    """
    folder = run.out
    values: dict[str, dict[str, dict[int, float]]] = {}
    files = {name: sorted(folder.rglob(f"{name}.results.json")) for name in ("table1", "table2")}
    run.refuse_other_jobs(files, seeds)
    for path in (one for paths in files.values() for one in paths):
        report = load_results(path)
        for model in (SCALAR, *SARMS, *SURFACE):
            for column, one in measured(report, model).items():
                numbers = values.setdefault(model, {}).setdefault(column, {})
                for seed, value in zip((0,) if model in SURFACE else report.seeds, per_seed(one), strict=True):
                    if numbers.setdefault(seed, value) != value:
                        raise SystemExit(f"{path}: {model}, {column}, seed {seed} is {value}, another file says {numbers[seed]}")
    wanted = {model: (0,) if model in SURFACE else tuple(seeds) for model in (SCALAR, *SARMS, *SURFACE)}
    there = {model: values.get(model, {}).get("Overall", {}) for model in wanted}
    missing = [f"{model}: seed {seed}" for model, own in wanted.items() for seed in own if seed not in there[model]]
    if missing:
        raise SystemExit(f"{folder}: no results of {'; '.join(missing)}")
    return {
        model: {column: tuple(numbers[seed] for seed in own) for column, numbers in values[model].items()} for model, own in wanted.items()
    }


def miniature_folder(store: Path) -> Path:
    """The language's artifact. Raises SystemExit unless there is exactly one."""
    found = sorted((store / "make_miniature").glob("[0-9a-f]*"))
    if len(found) != 1:
        raise SystemExit(f"{store}: {len(found)} artifacts make_miniature, one is needed: a store for each language")
    return found[0]


def shared_prompts(folder: Path) -> int:
    """Prompts that stand in two or more of the language's files."""
    places: dict[tuple[str, ...], set[str]] = {}
    for name in FILES:
        for item in read_jsonl(folder / f"{name}.jsonl", Preference):
            places.setdefault(tuple(turn.content for turn in item.prompt), set()).add(name)
    return sum(len(names) > 1 for names in places.values())


def median_length(folder: Path) -> int:
    """The median length of RewardBench 2's conversations in tokens: as `max_length` it cuts about half of them."""
    items = list(read_jsonl(folder / "rewardbench2.jsonl", Preference))
    tokenizer = ConversationTokenizer(load_tokenizer(folder))
    rows = encode_completions(items, tokenizer, max_length=10**6, overlong="error", name="rewardbench2")
    return sorted(len(row.ids) for row in rows)[len(rows) // 2]


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing, which no bound accepts."""
    return math.fsum(values) / len(values) if values else math.nan


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chosen(names: Iterable[str], only: Sequence[str], kind: str) -> list[str]:
    """The names that have one of `only` in them, all where that is empty. Raises SystemExit for a part that is in none."""
    known = list(names)
    unknown = [part for part in only if all(part not in name for name in known)]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: in no {kind}'s name (there are: {'; '.join(known)})")
    return [name for name in known if not only or any(part in name for part in only)]
