"""The command line: exit codes, one line a problem on stderr, data on stdout, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import replicate
from folders import ROOT

from replication.settings.experiments import EXPERIMENTS

# A finder and not sys.modules['torch'] = None: scipy takes an entry there for a loaded torch.


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("list",), ("list", "--json"), ("show", "table1"), ("plan", "table1"), ("plan", "all", "--profile", "paper"), ("audit",)],
)
def test_light_commands_work_with_torch_blocked(arguments: tuple[str, ...], tmp_path: Path) -> None:
    more = ("--store", str(tmp_path / "store")) if arguments[0] in ("plan", "show") else ()
    done = replicate(*arguments, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_answers_in_well_under_a_second_of_work() -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        replicate("--help")
        seconds.append(time.monotonic() - started)
    # Generous, since tests share the machine; alone it takes 0.4 s.
    assert min(seconds) < 2.0


def test_every_experiment_of_the_registry_is_a_command() -> None:
    assert all(name in replicate("--help").stdout for name in EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tabel1",), 2, "table1"),
        (("plan", "tabel1"), 2, "did you mean 'table1'"),
        (("show", "table1", "--why", "learning_rat"), 2, "did you mean 'learning_rate'"),
        (("table1", "--profile", "pper"), 2, "did you mean 'paper'"),
        (("table1", "--protocol", "author"), 2, "did you mean 'authors'"),
        (("table1", "--rows", "sarm-9b"), 2, "no such row"),
        (("table1", "--seeds", "a"), 2, "whole numbers"),
        (("table1", "--set", "reward.epoch=1"), 2, "did you mean 'epochs'"),
        (("table1", "--profile", "paper"), 7, "replicate fetch table1 --profile paper"),
        (("table1", "--profile", "examples/real-small.toml"), 2, "SARM_DATA is not set"),
        (("table1", "--profile", "examples/real-small.toml", "--rows", "small"), 2, "does not exist"),
        (("sweep", "--axis", "width"), 2, "unknown axis"),
        (("sweep", "--axis", "k", "--values", "7"), 2, "not a printed value"),
        (("ablation", "--name", "nothing"), 2, "random-init"),
        (("logs", "123"), 5, "replicate status"),
        (("render", "table1"), 5, "replicate table1"),
        (("reward", "--model", "/none", "--input", "/none"), 2, "--model /none does not exist"),
        (("score", "/none.jsonl", "--benchmark", "rewardbench2"), 2, "/none.jsonl"),
    ],
)
def test_bad_input_gets_its_exit_code_and_a_clear_line(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path) -> None:
    environment = {"SARM_DATA": "/none"} if "--rows" in arguments and "--profile" in arguments else {}
    done = replicate(*arguments, SARM_STORE=str(tmp_path / "store"), **environment)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_all_mistakes_of_a_command_line_are_told_at_once(tmp_path: Path) -> None:
    done = replicate("table1", "--profile", "pper", "--protocol", "x", "--seeds", "a", "--set", "reward.epoch=1", "--store", str(tmp_path))
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("replicate: ")]) == 4


def test_an_unforeseen_error_is_one_line_with_its_traceback_in_a_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "train_sae" / "x").mkdir(parents=True)
    code = """
import sys
import replication.cli.app, replication.cli.store

def boom(*arguments):
    raise ZeroDivisionError("odd")

replication.cli.store.ArtifactStore = boom
sys.argv = ["replicate", "status"]
replication.cli.app.main()
"""
    environment = {"PYTHONPATH": str(ROOT), "SARM_STORE": str(store)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "ZeroDivisionError: odd; traceback in " in done.stderr
    assert "ZeroDivisionError" in Path(done.stderr.strip().rpartition("traceback in ")[2]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["file/inside", "n" * 300])
def test_a_place_that_cannot_be_written_is_one_line_with_the_documented_code(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    done = replicate("slurm", "write", "--folder", str(tmp_path / name), cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert len(done.stderr.splitlines()) == 1 and name[:20] in done.stderr and "another place" in done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


def test_a_full_disk_is_told_though_its_error_names_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    from replication.cli import app

    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_bytes(b"x")
    assert app._report_error(caught.value) == 7
    assert capsys.readouterr().err == "replicate: what was being written: No space left on device; free it, or name another place\n"


def test_plan_as_json_has_every_job_with_reason_inputs_and_cost(tmp_path: Path) -> None:
    done = replicate("plan", "table1", "--json", "--store", str(tmp_path / "store"))
    jobs = json.loads(done.stdout)["jobs"]
    assert len(jobs) == 24 and not (tmp_path / "store").exists()
    assert all(job["why"] and job["action"] == "run" and job["cost"]["cpu_seconds"] > 0 for job in jobs)


def test_show_names_the_source_of_a_value(tmp_path: Path) -> None:
    scale = ("--profile", "paper", "--protocol", "authors", "--store", str(tmp_path))
    done = replicate("show", "table1", "--why", "reward.batch_pairs", *scale)
    assert "reward.batch_pairs = 256" in done.stdout and "accumulation" in done.stdout


def test_show_of_released_models_tells_nothing_of_training(tmp_path: Path) -> None:
    scale = ("--from", "released", "--store", str(tmp_path))
    done = replicate("show", "table1", "--profile", "paper", *scale)
    assert done.returncode == 0 and "scoring of sarm-4b" in done.stdout and "pinned one. (scoring.date_string)" in done.stdout
    assert "Optimizer" not in done.stdout and "checkpoint rule" not in done.stdout
    assert "none of these rows is a released model" in replicate("show", "table1", *scale).stdout
    assert "Optimizer" in replicate("show", "table1", "--store", str(tmp_path)).stdout


def test_a_wrong_pins_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "revisions.json").write_text("[1]", encoding="utf-8")
    done = replicate("plan", "table1", "--store", str(tmp_path))
    assert done.returncode == 2 and "replicate fetch" in done.stderr


def test_score_gives_metrics_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rewards.jsonl"
    line = {"id": "1", "subset": "Safety", "chosen_rewards": [1.0], "rejected_rewards": [0.0, 0.1, 0.2]}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    done = replicate("score", str(path), "--benchmark", "rewardbench2", "--json")
    content = json.loads(done.stdout)
    assert content["metrics"]["Safety"]["value"] == 1.0 and "Overall" in content["missing"] and content["notes"] == []
    path.write_text(json.dumps(line | {"rejected_rewards": [0.0]}) + "\n", encoding="utf-8")
    done = replicate("score", str(path), "--benchmark", "rewardbench2")
    assert done.returncode == 0 and "note: 1 items of Safety have 1 right and 1 wrong completions" in done.stderr


def test_verify_finds_a_changed_file(tmp_path: Path) -> None:
    from fake_launcher import FakeLauncher

    from replication.plan.steps import ordered
    from replication.recipes.jobs_needed import recipe
    from replication.recipes.setting import Setting
    from replication.settings.experiments import TABLE1
    from replication.settings.profile_files import load_profile
    from replication.settings.protocols import PROTOCOLS
    from sarm.store.artifacts import ArtifactStore

    store = ArtifactStore(tmp_path)
    jobs = ordered(recipe(Setting(experiment=TABLE1, profile=load_profile("mini", environment={}), protocol=PROTOCOLS["paper"])).jobs)
    FakeLauncher().launch(jobs, store, lambda event: None)
    assert replicate("verify", "--store", str(tmp_path)).returncode == 0
    assert replicate("render", "table1", "--store", str(tmp_path), "--format", "csv").returncode == 0
    (store.path(jobs[-1]) / "rewards.jsonl").write_text("{}", encoding="utf-8")
    done = replicate("verify", "--deep", "--store", str(tmp_path))
    assert done.returncode == 6 and jobs[-1].short_key in done.stderr
