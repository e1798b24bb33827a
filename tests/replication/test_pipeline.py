"""Plan, launch, collect, render: what is done is not done again, and every command is safe to repeat."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_launcher import FakeLauncher
from folders import ROOT

from replication import pipeline
from replication.pipeline import Outcome, folder, measured, replicate
from replication.plan.steps import fresh, plan
from replication.recipes.jobs_needed import Recipe
from replication.recipes.setting import Setting
from replication.report.cells import Report
from replication.report.provenance import stamps
from replication.report.results.files import earlier_files
from replication.settings.experiments import EXPERIMENTS, TABLE1
from replication.settings.overrides import parse_overrides
from replication.settings.profile_files import load_profile
from replication.settings.protocols import PROTOCOLS
from sarm.job import EnvironmentProblem
from sarm.store.artifacts import ArtifactStore


@pytest.fixture
def mini() -> Setting:
    return Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])


def run(setting: Setting, tmp_path: Path, launcher: FakeLauncher) -> Outcome:
    store = ArtifactStore(tmp_path / "store")
    return replicate([setting], store, launcher, watch=lambda event: None, rendered=tmp_path / "rendered", command="replicate table1")


def test_a_second_run_starts_no_job_and_renders_the_same_bytes(mini: Setting, tmp_path: Path) -> None:
    first = run(mini, tmp_path, FakeLauncher())
    assert first.code == 0 and first.started == 24
    before = {path: path.read_bytes() for path in first.files}
    again = FakeLauncher()
    second = run(mini, tmp_path, again)
    assert second.started == 0 and again.started == []
    assert {path: path.read_bytes() for path in second.files} == before
    assert {path.suffix for path in second.files} == {".md", ".tex", ".html", ".json", ".csv"}


def test_after_a_failure_the_code_is_the_launcher_s_and_what_is_done_is_kept(mini: Setting, tmp_path: Path) -> None:
    broken = run(mini, tmp_path, FakeLauncher(failing="train_reward", code=75))
    assert broken.code == 75 and not measured(broken.reports[0])
    again = FakeLauncher()
    assert run(mini, tmp_path, again).code == 0
    assert len(again.started) == 24 - 6


def test_a_plan_says_why_each_job_runs_or_is_reused_and_has_no_side_effects(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    empty = plan([mini], store)
    assert {step.action for step in empty.steps} == {"run"} and not (tmp_path / "store").exists()
    run(mini, tmp_path, FakeLauncher())
    changed = replace(mini, overrides=parse_overrides(["reward.epochs=7"]))
    steps = {step.job.label: step for step in plan([changed], store).steps}
    assert steps["SAE small layer 4, 2048 latents, k 6, tokens last, seed 0"].action == "reuse"
    assert "epochs" in steps["reward model sarm-1b, seed 0"].why and "-> 7" in steps["reward model sarm-1b, seed 0"].why
    assert steps["scores of sarm-1b on rmbench, seed 0"].why == "its input changed: model"


def test_a_corrupt_artifact_is_planned_to_be_rebuilt(mini: Setting, tmp_path: Path) -> None:
    run(mini, tmp_path, FakeLauncher())
    store = ArtifactStore(tmp_path / "store")
    job = plan([mini], store).steps[-1].job
    (store.path(job) / "rewards.jsonl").write_text("{}", encoding="utf-8")
    step = next(step for step in plan([mini], store).steps if step.job == job)
    assert step.action == "rebuild" and step.why


def test_fresh_counts_attempts_and_an_unfinished_one_is_continued(mini: Setting, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    assert fresh(mini, store).attempt == 1
    run(fresh(mini, store), tmp_path, FakeLauncher(failing="train_reward"))
    assert fresh(mini, store).attempt == 1
    run(fresh(mini, store), tmp_path, FakeLauncher())
    assert fresh(mini, store).attempt == 2


def test_a_launch_at_paper_scale_refuses_unpinned_revisions(tmp_path: Path) -> None:
    paper = Setting(experiment=TABLE1, profile=load_profile("paper", environment={}), protocol=PROTOCOLS["paper"])
    launcher = FakeLauncher()
    with pytest.raises(EnvironmentProblem, match="replicate fetch table1 --profile paper") as caught:
        run(paper, tmp_path, launcher)
    assert caught.value.exit_code == 7 and launcher.started == []


def test_experiments_share_their_work_in_one_plan(mini: Setting, tmp_path: Path) -> None:
    settings = [replace(mini, experiment=experiment) for experiment in EXPERIMENTS.values()]
    together = plan(settings, ArtifactStore(tmp_path / "store"))
    assert len([step for step in together.steps if step.job.kind == "train_reward"]) == 3 + 6 + 13 - 2
    assert len({step.job.key for step in together.steps}) == len(together.steps)


def test_tables_of_another_protocol_have_a_folder_of_their_own(mini: Setting) -> None:
    assert folder(Path("r"), mini) == Path("r/mini")
    assert folder(Path("r"), replace(mini, protocol=PROTOCOLS["authors"])) == Path("r/mini-authors")


def test_an_unchanged_report_is_read_and_a_changed_one_made_anew(mini: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    build = pipeline.report

    def counted(one: Recipe, store: ArtifactStore, **options: Any) -> Report:
        made.append(one.setting.experiment.name)
        return build(one, store, **options)

    monkeypatch.setattr(pipeline, "report", counted)
    first = run(mini, tmp_path, FakeLauncher())
    second = run(mini, tmp_path, FakeLauncher())
    assert made == ["table1"] and second.reports == first.reports and (second.files, second.results) == (first.files, first.results)
    first.files[0].write_text("edited by hand", encoding="utf-8")
    assert run(mini, tmp_path, FakeLauncher()).files[0].read_text(encoding="utf-8") != "edited by hand" and len(made) == 2
    first.results[-1].unlink()
    assert run(mini, tmp_path, FakeLauncher()).results[-1].is_file() and len(made) == 3
    (folder(tmp_path / "rendered", mini) / ".table1.stamp").write_text("[]", encoding="utf-8")
    run(mini, tmp_path, FakeLauncher())
    assert len(made) == 4
    monkeypatch.setattr(stamps, "_sources", lambda: iter(["other code"]))
    run(mini, tmp_path, FakeLauncher())
    run(replace(mini, seeds=(0, 1)), tmp_path, FakeLauncher())
    assert len(made) == 6


def test_pictures_lie_beside_the_tables_and_are_drawn_again_only_where_they_are_gone(mini: Setting, tmp_path: Path) -> None:
    run(mini, tmp_path, FakeLauncher())
    where = folder(tmp_path / "rendered", mini)
    drawn = {path: path.stat().st_mtime_ns for path in where.glob("table1-*") if path.suffix in (".svg", ".png")}
    assert {path.name for path in drawn} >= {"table1-intervals.svg", "table1-intervals.png"}
    run(mini, tmp_path, FakeLauncher())
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    before = (where / "table1-intervals.svg").read_bytes()
    (where / "table1-intervals.svg").unlink()
    run(mini, tmp_path, FakeLauncher())
    assert (where / "table1-intervals.svg").read_bytes() == before


def test_results_of_an_earlier_draw_stay_and_are_told_apart_from_those_of_this_one(mini: Setting, tmp_path: Path) -> None:
    whole = run(mini, tmp_path, FakeLauncher())
    assert earlier_files(whole.results) == ()
    less = run(replace(mini, rows="sarm-1b"), tmp_path, FakeLauncher())
    left = earlier_files(less.results)
    assert {path.name for path in left} >= {"sarm-2b-0-rewardbench2.jsonl", "sarm-4b.json"} and set(left) <= set(whole.results)
    assert earlier_files(run(mini, tmp_path, FakeLauncher()).results) == ()


def test_a_report_with_gaps_is_made_anew_when_they_are_filled(mini: Setting, tmp_path: Path) -> None:
    assert not measured(run(mini, tmp_path, FakeLauncher(failing="train_reward")).reports[0])
    assert measured(run(mini, tmp_path, FakeLauncher()).reports[0])


@pytest.mark.parametrize(("experiment", "holds"), [("table4", True), ("features", False), ("figure3", False), ("table1", False)])
def test_what_prints_no_table_is_measured_where_its_product_is_there(mini: Setting, tmp_path: Path, experiment: str, holds: bool) -> None:
    report = run(mini, tmp_path, FakeLauncher()).reports[0]
    assert "train_reward" in {one.kind for one in report.provenance}
    assert measured(report.model_copy(update={"experiment": experiment, "tables": ()})) is holds


def test_a_repeated_command_needs_no_statistics_and_no_drawing(mini: Setting, tmp_path: Path) -> None:
    run(mini, tmp_path, FakeLauncher())
    code = (
        "import sys\n"
        "sys.argv = ['replicate', 'table1', '--store', sys.argv[1], '--out', sys.argv[2]]\n"
        "from replication.cli.app import app\n"
        "try: app()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded:', *sorted({'torch', 'scipy', 'statsmodels', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "out")]
    loaded = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
        loaded.append(done.stdout.rpartition("loaded:")[2].split())
    assert "statsmodels" in loaded[0] and loaded[1] == []
