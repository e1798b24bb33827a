"""`replicate reward --steer`: the exit codes of files that do not fit, from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from asked_models import PROMPT, REPLIES, write_dense, write_sarm
from authors_checkpoints import random_sarm
from command_line import replicate
from folders import ROOT
from reward_model_folders import saved
from tiny_profile import write_profile

from sarm.demo.answers import AskedModel, Edited


def steering_file(folder: Path, model: Path, factors: dict[int, float]) -> Path:
    """What the page saves for a model."""
    file = AskedModel(model, device=torch.device("cpu"), max_length=200).steering_file(Edited(factors=factors))
    path = folder / "steering.json"
    path.write_text(file.model_dump_json())
    return path


def command(folder: Path, model: Path, steer: Path) -> list[str]:
    row = {"messages": [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": REPLIES[0]}]}
    (folder / "talk.jsonl").write_text(json.dumps(row) + "\n")
    places = ["--input", str(folder / "talk.jsonl"), "--store", str(folder / "store"), "--steer", str(steer)]
    return ["reward", "--model", str(model), *places]


def test_what_is_wrong_in_the_file_itself_starts_no_job(tmp_path: Path) -> None:
    model = write_sarm(tmp_path / "model")
    path = steering_file(tmp_path, model, {3: 2.0})
    for change, code, message in (
        ({"schema_version": "2.0"}, 6, "schema_version '2.0'"),
        ({"factors": {"3": 1.0}}, 2, "changes nothing"),
        ({"factors": {"99": 2.0}}, 2, "latent 99 does not exist"),
    ):
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        done = replicate(*command(tmp_path, model, changed))
        assert done.returncode == code and message in done.stderr and len(done.stderr.splitlines()) == 1
    done = replicate(*command(tmp_path, model, tmp_path / "absent.json"))
    assert done.returncode == 2 and "no such file" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code", "message"), [("other", 6, "made for another model"), ("dense", 2, "needs a SARM or a linear")])
def test_a_file_for_another_model_ends_with_one_line_and_its_code(tmp_path: Path, kind: str, code: int, message: str) -> None:
    path = steering_file(tmp_path, write_sarm(tmp_path / "model"), {3: 2.0})
    model = saved(tmp_path / "other", random_sarm()) if kind == "other" else write_dense(tmp_path / "dense")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    asked = [sys.executable, "-m", "replication.cli", *command(tmp_path, model, path)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr and not done.stdout


@pytest.mark.slow
def test_figure3_takes_the_file_beside_its_own_figure_and_compares_nothing(tmp_path: Path) -> None:
    profile, store = write_profile(tmp_path), tmp_path / "store"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}

    def figure3(*more: str) -> subprocess.CompletedProcess[str]:
        places = ["--profile", str(profile), "--store", str(store), "--out", str(tmp_path / "out"), "--yes", *more]
        asked = [sys.executable, "-m", "replication.cli", "figure3", *places]
        return subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, timeout=400)

    figure3()
    (model,) = (store / "train_reward").iterdir()
    path = steering_file(tmp_path, model, {3: 2.0, 5: 0.0})
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    done = figure3("--steer", str(path))
    assert done.returncode == 0, done.stderr
    assert all(file.read_bytes() == content for file, content in before.items()), "what stood there still stands"
    results = json.loads((tmp_path / "out" / "steered" / "tiny" / "figure3.results.json").read_text())
    assert results["report"]["comparable"] is False and "steered by a file (--steer)" in results["report"]["why_not_comparable"]
    assert "rewards before and after the edit of a steering file" in done.stdout
    assert figure3("--steer", str(path)).stderr.count("all jobs were reused from the store") == 1
    other = json.loads(steering_file(tmp_path, model, {3: 2.0}).read_text())
    other["model"]["head_sha256"] = "0" * 64
    path.write_text(json.dumps(other))
    refused = figure3("--steer", str(path))
    assert refused.returncode == 6 and "made for another model" in refused.stderr
    both = figure3("--steer", str(path), "--from", "scores")
    assert both.returncode == 2 and "--steer edits a model, and --from scores has none" in both.stderr
