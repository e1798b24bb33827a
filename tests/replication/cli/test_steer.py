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
