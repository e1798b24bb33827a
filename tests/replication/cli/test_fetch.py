"""`replicate fetch` against a hub of our own: a model whose sizes nobody knows, and one model by its name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import ROOT
from hub_server import Hub, Repository, serving
from own_input import own_input
from tiny import save_backbone

from replication.lock_files import read_fetched
from sarm.store.artifacts import ArtifactStore

COMMIT = "c" * 40


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(Hub(models={"owner/model": Repository.of_folder(save_backbone(tmp_path / "model"))})) as one:
        yield one


def replicate(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "SARM_STORE": str(tmp_path / "store"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "replication.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240, env={**kept, **own})


def profile_file(tmp_path: Path) -> Path:
    """The miniature with a small backbone from the hub, whose sizes it does not state."""
    text = (ROOT / "replication" / "profiles" / "mini.toml").read_text(encoding="utf-8")
    backbone = (
        '[backbones.small]\nstands_for = "Llama-3.2-3B-Instruct"\n'
        'source = { kind = "hub", repository = "owner/model", revision = "main" }\n'
        "[backbones.small.layers]\n14 = 2\n21 = 3\n[backbones.small.ks]\n144 = 4\n\n"
    )
    file = tmp_path / "hubbed.toml"
    file.write_text(text[: text.index("[backbones.small]")] + backbone + text[text.index("[text]") :], encoding="utf-8")
    return file


@pytest.mark.slow
def test_fetch_brings_a_model_first_whose_sizes_the_profile_leaves_out(hub: Hub, tmp_path: Path) -> None:
    file = profile_file(tmp_path)
    asked = ("table1", "--profile", str(file), "--rows", "sarm-1b")
    before = replicate(hub, tmp_path, "plan", *asked)
    assert before.returncode == 7 and f"run: replicate fetch table1 --profile {file} --rows sarm-1b" in before.stderr
    dry = replicate(hub, tmp_path, "fetch", *asked, "--dry-run")
    assert dry.returncode == 0 and "fetch_weights backbone small" in dry.stdout and "depends on sizes" in dry.stderr
    done = replicate(hub, tmp_path, "fetch", *asked)
    assert done.returncode == 0, done.stderr
    after = replicate(hub, tmp_path, "plan", *asked)
    assert after.returncode == 0, after.stderr


@pytest.mark.slow
def test_one_model_is_fetched_by_its_name(hub: Hub, tmp_path: Path) -> None:
    dry = replicate(hub, tmp_path, "fetch", "--model", "owner/model", "--dry-run")
    assert dry.returncode == 0 and dry.stdout == "fetch_weights model owner/model at unknown\n"
    done = replicate(hub, tmp_path, "fetch", "--model", "owner/model")
    assert done.returncode == 0, done.stderr
    assert set(read_fetched(ArtifactStore(tmp_path / "store"))) == {f"model owner/model@{COMMIT}"}
    # From there a profile is made, without a network.
    data = own_input(tmp_path / "data")
    asked = ("--model", "owner/model", "--pairs", str(data["pairs"]), "--text", str(data["text"]), "--out", "own.toml")
    made = replicate(hub, tmp_path, "init", *asked)
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "own.toml").read_text(encoding="utf-8")
    assert f'source = {{ kind = "hub", repository = "owner/model", revision = "{COMMIT}" }}' in text and "shape" not in text
    planned = replicate(hub, tmp_path, "plan", "table1", "--profile", "own.toml")
    # Nothing of its tokenizer is changed, so that the model is not fetched again.
    assert planned.returncode == 0 and re.search(r"reuse +backbone small", planned.stdout), planned.stderr
    for arguments, code in ((("--model", "model"), 2), (("table1", "--model", "owner/model"), 2), ((), 2), (("--model", "owner/none"), 7)):
        refused = replicate(hub, tmp_path, "fetch", *arguments)
        assert refused.returncode == code and "Traceback" not in refused.stderr, arguments
