"""The words around a run, as a user of an 80-column pipe gets them: what will be done, what was found, where it is, what to do next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_launcher import FakeLauncher
from folders import ROOT
from rich.cells import cell_len

from replication.pipeline import replicate
from replication.plan.steps import plan
from replication.plan.view import DOES, announcement
from replication.recipes.setting import Setting
from replication.settings.experiments import EXPERIMENTS, TABLE1
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.store.artifacts import ArtifactStore

MINI = Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which all of table1 is there, with invented rewards."""
    folder = tmp_path_factory.mktemp("closing")
    replicate([MINI], ArtifactStore(folder / "store"), FakeLauncher(), watch=lambda event: None, rendered=folder / "out", command="x")
    return folder


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "replication.cli", *arguments, "--store", str(folder / "store")]
    known = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT, env={**known, **environment}, timeout=120)


def test_a_run_prints_short_tables_what_it_found_where_it_is_and_what_comes_next(store: Path) -> None:
    done = command(store, "table1", "--out", str(store / "out"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # The last line is a command, which is not broken where a path in it is longer than a line.
    assert max(map(cell_len, lines)) <= 80 and len(lines) <= 75 and "\x1b" not in done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert "none of them confirms or refutes the paper" in text and "SARM-4B 75" in text
    assert "Not shown: " in text and "--full" in text.rpartition("All of it: ")[2]
    assert "Instead of protocol paper" not in text
    assert f"tables: {store / 'out' / 'mini' / 'table1.md'}" in done.stderr
    assert f"next: replicate report --rendered {store / 'out'} --store {store / 'store'}  (all tables in one page)" in done.stderr
    assert f"next: replicate claims --profile mini --seeds 0 --store {store / 'store'}" in done.stderr


def test_a_run_tells_results_beside_its_own_that_an_earlier_one_left(store: Path, tmp_path: Path) -> None:
    whole = command(store, "table1", "--out", str(tmp_path))
    less = command(store, "table1", "--rows", "sarm-1b", "--out", str(tmp_path))
    assert whole.returncode == less.returncode == 0 and "of an earlier draw" not in whole.stderr
    rewards = tmp_path / "mini" / "table1" / "rewards"
    assert f"note: of an earlier draw, not of these tables: sarm-2b-0-evaluation.jsonl and 7 more in {rewards}, " in less.stderr
    assert (rewards / "sarm-2b-0-evaluation.jsonl").is_file()


def test_full_prints_every_note_and_columns_widens_a_pipe(store: Path) -> None:
    whole = command(store, "table1", "--full", "--out", str(store / "out"), COLUMNS="120")
    widths = [cell_len(line) for line in whole.stdout.splitlines()]
    assert "Instead of protocol paper: sae.vectors" in whole.stdout and "Not shown" not in whole.stdout
    assert 80 < max(widths) <= 120


def test_render_prints_the_same_text_and_starts_nothing(store: Path) -> None:
    short, whole = (command(store, "render", "table1", "--format", "text", *more) for more in ((), ("--full",)))
    assert short.returncode == whole.returncode == 0
    assert "Not shown" in short.stdout and "Instead of protocol paper" in whole.stdout
    wrong = command(store, "render", "table1", "--full")
    assert wrong.returncode == 2 and "--full has a meaning with --format text alone" in wrong.stderr


def test_what_will_be_done_is_said_in_words_with_the_expected_time(tmp_path: Path) -> None:
    first, second = announcement(plan([MINI], ArtifactStore(tmp_path)))
    assert first.startswith("24 jobs to run, 0 reused: ") and "train 3 reward models" in first and "train 3 SAEs" in first
    assert second.startswith("expected: about ") and "on this machine" in second and "GB of artifacts" in second


def test_every_kind_of_the_experiments_has_words(tmp_path: Path) -> None:
    kinds = set()
    for experiment in EXPERIMENTS.values():
        for name in ("mini", "paper"):
            setting = Setting(experiment=experiment, profile=load_profile(name, environment={}), protocol=PROTOCOLS["paper"])
            kinds |= {step.job.kind for step in plan([setting], ArtifactStore(tmp_path)).steps}
    assert kinds <= DOES.keys(), kinds - DOES.keys()
